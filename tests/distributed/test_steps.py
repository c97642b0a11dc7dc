"""Every method takes the step of one process in several: the same gradient, the same metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.distributed.world import ALONE, World
from strop.engines.engine import Request
from strop.engines.local.engine import LocalEngine
from strop.model.load import load_policy
from strop.model.logprobs import bare
from strop.model.sharding import gathered, mesh_of
from strop.model.tensor_parallel import divide
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.methods import METHODS
from strop.recipe.train.model import ModelRecipe
from strop.recipe.train.run import DistributedRecipe
from strop.train.build import build_loop, build_state
from strop.train.loop.optim import build_optimizer
from strop.train.loop.state import TrainState
from strop.train.preflight.prepare import prepare
from strop.types import Completion, StepRecord
from tests.support.experts import save_mixture
from tests.support.gloo import in_processes
from tests.support.models import Recorder
from tests.support.runs import OFFLINE, ONLINE, write_recipes

TIMES = {"step_time", "sampling_time"}
WHOLE_RUNS = ("sft", "dpo", "kto", "reward_model", "grpo", "ppo")
STEPS = 20

NONE = DistributedRecipe()
FULL = DistributedRecipe(shard="full")
HYBRID = DistributedRecipe(shard="hybrid", replicas=2)
TENSOR = DistributedRecipe(tensor=2)
TENSOR_AND_SHARD = DistributedRecipe(tensor=2, shard="full")
TENSOR_AND_HYBRID = DistributedRecipe(tensor=2, shard="hybrid", replicas=2)


class Recorded(LocalEngine):
    """Samples from a float32 copy, or gives the answers of an earlier run with the same draw keys:
    rounding could otherwise flip a draw."""

    def __init__(self, recipe: ModelRecipe, said: dict[Any, Completion]) -> None:
        super().__init__(recipe.path, load_policy(recipe))
        self.said, self.replays = said, bool(said)

    def publish(self, weights: Mapping[str, torch.Tensor]) -> int:
        return super().publish({name: gathered(weight) for name, weight in weights.items()})

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        if self.replays:
            yield from ((i, self.said[one.key]) for i, one in enumerate(requests))
            return
        for i, completion in super().generate(requests):
            self.said[requests[i].key] = completion
            yield i, completion


def begun(
    path: Path,
    world: World,
    output: str,
    said: dict[Any, Completion],
    *options: str,
    cut: DistributedRecipe = NONE,
) -> tuple[TrainState, Iterator[StepRecord]]:
    """A run of this recipe in float64, built as `strop train` builds it."""
    folder = path.parent / f"{path.stem}-{output}-{world.rank}"
    recipe = load_recipe(path, [f"output={folder}", *options])
    prepared = prepare(recipe, resume=False, overwrite=False, force=False)
    prepared.folder.mkdir(exist_ok=True)
    torch.manual_seed(recipe.seed)
    state = build_state(recipe, recipe.model)
    state.network.model.double()
    if recipe.model.router_aux_loss_coef is not None:
        # torch's grouped product takes no float64
        bare(state.network.model).set_experts_implementation("eager")
    if state.critic is not None:
        state.critic.network.model.double()
    if cut.cuts and world.size > 1:
        mesh = mesh_of(cut, world.size, "cpu")
        divide(state.network, cut, mesh)
        state.optimizer = build_optimizer(state.network, recipe.optim)
        if state.critic is not None:
            divide(state.critic.network, cut, mesh)
            state.critic.optimizer = build_optimizer(state.critic.network, recipe.optim)
    engine = Recorded(recipe.model, said) if recipe.method in ONLINE else None
    return state, build_loop(state, prepared, engine, world.in_groups(cut.tensor))[0]


Case = tuple[str, tuple[str, ...]]
"""A method, and options beside those of its recipe: `("dpo", ("model.lora.rank=4",))`."""

Said = dict[Case, dict[Any, Completion]]
Seen = dict[Case, tuple[torch.Tensor, Mapping[str, float]]]

LORA = "model.lora.rank=4"
BALANCED = "model.router_aux_loss_coef=0.5"
TWICE = "run.distributed.activation_checkpointing=true"
GIVEN = {"gkd": ("objective.own_samples=0", "rollout={}")}
"""Nothing samples from weights in float64; its own samples are compared in tests/train."""
ALL: tuple[Case, ...] = tuple((method, GIVEN.get(method, ())) for method in METHODS)
SOME: tuple[Case, ...] = (
    *((method, ()) for method in WHOLE_RUNS),
    ("dpo", (LORA,)),
    ("dpo", (LORA, TWICE)),
)
DIVIDED: tuple[Case, ...] = tuple((method, ()) for method in WHOLE_RUNS)
FEWER_GROUPS: tuple[Case, ...] = tuple(
    (method, ("run.batch_size=1", *options))
    for method, options in (
        ("grpo", ("rollout.mismatch={level: sequence, bound: truncate, cap: 2.0}",)),
        ("reinforce_pp", ()),
        ("ppo", ()),
    )
)
"""Steps of one group: of two processes, one has nothing to learn from."""


def gradients(
    world: World,
    recipes: Mapping[str, Path],
    cases: Sequence[Case],
    said: Said,
    cut: DistributedRecipe = NONE,
) -> Seen:
    """The gradient of each case's first step, and its metrics."""
    seen = {}
    for number, case in enumerate(cases):
        method, more = case
        options = ["run.batch_size=5", "run.micro_batch_tokens=120", "run.steps=1", *more]
        answers = said.setdefault(case, {})
        way = f"{cut.shard}-{cut.replicas}-{cut.tensor}"
        output = f"of-{world.size}-{way}-{number}-of-{len(cases)}"
        state, steps = begun(recipes[method], world, output, answers, *options, cut=cut)
        recorder = Recorder(state.network.trainable())
        state.optimizer = recorder
        (record,) = steps
        seen[case] = (torch.cat(recorder.seen), record.metrics)
    return seen


class Alone:
    """What one process computes, each case once for all tests that look at it."""

    def __init__(self, recipes: Mapping[str, Path]) -> None:
        self.recipes = recipes
        self.said: Said = {}
        self.seen: Seen = {}

    def expect_equal(
        self, count: int, cases: Sequence[Case], cut: DistributedRecipe = NONE
    ) -> None:
        """Each of so many processes has the gradients and metrics of one process."""
        new = [case for case in cases if case not in self.seen]
        self.seen |= gradients(ALONE, self.recipes, new, self.said)
        said = {case: self.said[case] for case in cases}
        for rank, several in enumerate(
            in_processes(count, gradients, self.recipes, cases, said, cut)
        ):
            assert isinstance(several, dict), several
            for case in cases:
                gradient, row = self.seen[case]
                found, metrics = several[case]
                assert gradient.norm() > 0, case
                apart = float((found - gradient).norm() / gradient.norm())
                assert apart <= 1e-6, f"{case}, process {rank}: {apart:.1e}"
                assert metrics.keys() == row.keys(), case
                for name, value in row.items():
                    if name not in TIMES:
                        close = pytest.approx(value, rel=1e-4, abs=1e-6)
                        assert metrics[name] == close, (case, name)


@pytest.fixture(scope="module")
def recipes(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small recipes, written once."""
    return write_recipes(tmp_path_factory.mktemp("recipes"), model_folder)


@pytest.fixture(scope="module")
def mixture_alone(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """What one process computes of a mixture of experts."""
    start = save_mixture(tmp_path_factory.mktemp("mixture"), tokenizer)
    return Alone(write_recipes(tmp_path_factory.mktemp("recipes"), start))


@pytest.fixture(scope="module")
def alone(recipes: dict[str, Path]) -> Alone:
    return Alone(recipes)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_every_method_takes_the_step_of_one_process(count: int, alone: Alone) -> None:
    """Five records a step over two processes, and over four, of which one then has two."""
    assert sorted(alone.recipes) == sorted(METHODS) == sorted([*OFFLINE, *ONLINE])
    alone.expect_equal(count, ALL)


@pytest.mark.parametrize(
    ("count", "cut", "cases"),
    [
        (2, FULL, (*SOME, *FEWER_GROUPS)),
        (4, HYBRID, (("dpo", ()), ("grpo", ()))),
        (2, TENSOR, DIVIDED),
        (4, TENSOR_AND_SHARD, (("dpo", ()), ("grpo", ()))),
        (2, FULL, tuple(case for case in ALL if case[0] in ("distil", "minillm"))),
        pytest.param(2, FULL, ALL, marks=pytest.mark.slow),
        pytest.param(4, FULL, ALL, marks=pytest.mark.slow),
        pytest.param(4, HYBRID, ALL, marks=pytest.mark.slow),
        pytest.param(2, TENSOR, ALL, marks=pytest.mark.slow),
        pytest.param(4, TENSOR, ALL, marks=pytest.mark.slow),
        pytest.param(4, TENSOR_AND_SHARD, ALL, marks=pytest.mark.slow),
        pytest.param(8, TENSOR_AND_HYBRID, DIVIDED, marks=pytest.mark.slow),
    ],
)
def test_a_sharded_step_is_that_of_one_process(
    count: int, cut: DistributedRecipe, cases: Sequence[Case], alone: Alone
) -> None:
    """Frozen weights below an adapter are cut, too; also layers that are computed twice."""
    alone.expect_equal(count, cases, cut)


@pytest.mark.parametrize("cut", [NONE, FULL])
def test_the_routers_loss_is_that_of_one_process(
    cut: DistributedRecipe, mixture_alone: Alone
) -> None:
    """How often experts are chosen is counted over the step of both processes."""
    methods = ("sft", "dpo", "kto", "grpo", "raft")
    mixture_alone.expect_equal(2, [(method, (BALANCED,)) for method in methods], cut)
    assert all(row["aux_loss"] > 1 for _, row in mixture_alone.seen.values())


def trained(
    world: World, path: Path, said: dict[Any, Completion], cut: DistributedRecipe = NONE
) -> dict[str, torch.Tensor]:
    """The weights after a whole run."""
    options = ["run.batch_size=6", f"run.steps={STEPS}", "optim.learning_rate=1e-4"]
    state, steps = begun(path, world, f"run-{world.size}", said, *options, cut=cut)
    assert len(list(steps)) == STEPS
    weights = state.network.model.named_parameters()
    return {name: gathered(p.detach()).clone() for name, p in weights}


@pytest.mark.slow
@pytest.mark.parametrize("method", WHOLE_RUNS)
@pytest.mark.parametrize("count", [2, 4])
def test_a_whole_run_ends_with_the_weights_of_one_process(
    count: int, method: str, recipes: dict[str, Path], model_folder: Path
) -> None:
    said: dict[Any, Completion] = {}
    alone = trained(ALONE, recipes[method], said)
    for several in in_processes(count, trained, recipes[method], said):
        assert isinstance(several, dict), several
        for name, weight in alone.items():
            assert float((several[name] - weight).abs().max()) <= 1e-5, name


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "dpo"])
@pytest.mark.parametrize(("count", "cut"), [(2, TENSOR), (4, TENSOR_AND_SHARD)])
def test_a_whole_run_in_tensor_groups_ends_with_the_weights_of_one_process(
    count: int, cut: DistributedRecipe, method: str, recipes: dict[str, Path]
) -> None:
    alone = trained(ALONE, recipes[method], {})
    for several in in_processes(count, trained, recipes[method], {}, cut):
        assert isinstance(several, dict), several
        for name, weight in alone.items():
            assert float((several[name] - weight).abs().max()) <= 1e-5, name
