"""Two processes that share a step take the step of one: the same gradient, the same metrics."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from strop.distributed.world import ALONE, Counts, Gathered, World
from strop.errors import NotFiniteError
from strop.losses.metrics import Metric, merge, results
from strop.losses.reduce import Loss
from strop.model.load import load_policy
from strop.model.network import Policy
from strop.model.reference import Reference
from strop.recipe.train.methods import METHODS
from strop.recipe.train.model import ModelRecipe
from strop.recipe.train.preference import AotObjective, DpoObjective, PairObjective
from strop.train.loop.state import RunningMean, TrainState
from strop.train.loop.updater import Update, Updater
from strop.train.methods.pairs import PairMethod, PairRule
from strop.train.methods.policy_gradient import PolicyGradient
from strop.train.methods.supervised import SupervisedMethod
from strop.train.methods.unpaired import OtherAnswers, UnpairedMethod, other_answers
from strop.types import Branch, Completion, Origin, Rollout, Score, ScoredGroup, Task, Tree
from tests.support.models import Recorder

MAX_TOKENS = 40

T = TypeVar("T")


class Table:
    """Where two threads lay down what they have and pick up what both have."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=60)
        self.slots: list[Any] = [None, None]

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self.slots[rank] = value
        self.barrier.wait()
        both = list(self.slots)
        self.barrier.wait()
        return both


class OneOfTwo:
    """A world of two processes, played by two threads."""

    size, data_size, leads, waited = 2, 2, True, 0.0

    def __init__(self, table: Table, rank: int) -> None:
        self.table, self.rank, self.data_rank = table, rank, rank

    def exchanged(self, value: T) -> list[T]:
        return self.table.exchange(self.rank, value)

    def by_data_rank(self, value: T) -> list[T]:
        return self.exchanged(value)

    def first_group(self, make: Callable[[], T]) -> T:
        return self.first(make)

    def in_groups(self, tensor: int) -> World:
        return self

    def first(self, make: Callable[[], T]) -> T:
        return self.exchanged(make() if self.rank == 0 else None)[0]  # type: ignore[return-value]

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def total(self, counts: Counts) -> Counts:
        one, other = self.table.exchange(self.rank, counts)
        return {name: one[name] + other[name] for name in one}

    def gathered(self, values_N: torch.Tensor) -> Gathered:
        both = self.table.exchange(self.rank, values_N.detach())
        first = sum(len(values) for values in both[: self.rank])
        return Gathered(torch.cat(both), slice(first, first + len(values_N)))

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        mine = list(parameters)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in mine]
        both = self.table.exchange(self.rank, grads)
        for parameter, *parts in zip(mine, *both, strict=True):
            parameter.grad = torch.stack(parts).sum(0)

    def merged(self, metrics: Mapping[str, Metric]) -> dict[str, Metric]:
        one, other = self.table.exchange(self.rank, metrics)
        return merge(one, other)


Step = tuple[torch.Tensor, dict[str, float]]
"""The gradient of all updates end to end, and what was logged."""

Make = Callable[[TrainState, World], Callable[[Sequence[int]], Iterable[Update]]]
"""From a state and a world to the updates that a process makes of its part of the step."""


def step(policy: Policy, make: Make, part: Sequence[int], world: World) -> Step:
    own = copy.deepcopy(policy.model)
    network = Policy(own, policy.tokenizer, False, type(policy.score)(own))
    recorder = Recorder(network.trainable())
    state = TrainState(network, recorder)
    updater, logged = Updater(state, 1e9, world), dict[str, Metric]()
    for update in make(state, world)(part):
        logged = merge(logged, updater.step(update, learning_rate=0.1, where="step 1"))
    return torch.cat(recorder.seen), results(logged)


def together(policy: Policy, make: Make, count: int) -> tuple[Step, list[Step]]:
    """One process over everything, and two of a part each (unequal parts)."""
    alone = step(policy, make, range(count), ALONE)
    table, cut = Table(), count // 2 - 1
    parts = [range(cut), range(cut, count)]
    with ThreadPoolExecutor(2) as threads:
        running = [
            threads.submit(step, policy, make, part, OneOfTwo(table, rank))
            for rank, part in enumerate(parts)
        ]
        return alone, [future.result() for future in running]


@pytest.fixture
def policy(model_folder: Path) -> Policy:
    return load_policy(ModelRecipe(path=str(model_folder)))


def answers(count: int, branches: int) -> list[Tree]:
    """Trees whose branches have two to six tokens."""

    def answer(number: int) -> Branch:
        ids = (20 + number, *[30 + number] * (number % 5), 2)
        return Branch(ids, (True,) * len(ids))

    return [
        Tree((1, 4 + i), tuple(answer(3 * i + b) for b in range(branches))) for i in range(count)
    ]


def supervised(state: TrainState, world: World) -> Callable[[Sequence[int]], Iterable[Update]]:
    method = SupervisedMethod(state.network, answers(8, 1), MAX_TOKENS)  # type: ignore[arg-type]
    return lambda part: [method.update(part)]


def replayed(state: TrainState, world: World) -> Callable[[Sequence[int]], Iterable[Update]]:
    """Half of the demonstrations beside the others, at a quarter of their weight."""
    trees = answers(16, 1)
    own = SupervisedMethod(state.network, trees[:8], MAX_TOKENS)  # type: ignore[arg-type]
    beside = SupervisedMethod(state.network, trees[8:], MAX_TOKENS, prefix="replay/")  # type: ignore[arg-type]
    return lambda part: [own.update(part).beside(beside.update(part), 0.25)]


def pairs(rule: PairRule) -> Make:
    def make(state: TrainState, world: World) -> Callable[[Sequence[int]], Iterable[Update]]:
        trees = answers(8, 2)
        ref_B2 = torch.linspace(-20, -12, 32).view(16, 2)
        mean = RunningMean(0.3, steps=4)
        method = PairMethod(rule, MAX_TOKENS, state.network, trees, ref_B2, mean, world=world)  # type: ignore[arg-type]
        return lambda part: [method.update(part)]

    return make


def kto(state: TrainState, world: World) -> Callable[[Sequence[int]], Iterable[Update]]:
    trees = answers(8, 1)
    recipe = METHODS["kto"].recipe.model_validate({
        "method": "kto", "output": "o", "model": {"path": "m"}, "data": "d", "seed": 3,
        "optim": {"learning_rate": 1e-5}, "run": {"steps": 1, "micro_batch_tokens": MAX_TOKENS},
    })  # fmt: skip
    others = OtherAnswers(other_answers(trees, 3, 64), torch.linspace(-40, -30, 8))
    labels = torch.tensor([True, False, True, True, False, True, False, True])
    method = UnpairedMethod(
        recipe, state.network, trees, labels, torch.linspace(-30, -20, 8), others, world=world,  # type: ignore[arg-type]
    )  # fmt: skip
    return lambda part: [method.update(part)]


def gradient(name: str, groups: Callable[[int], ScoredGroup] | None = None, **options: Any) -> Make:
    def make(state: TrainState, world: World) -> Callable[[Sequence[int]], Iterable[Update]]:
        recipe = METHODS[name].recipe.model_validate({
            "method": name, "output": "o", "model": {"path": "m"}, "data": "d",
            "optim": {"learning_rate": 1e-5}, "run": {"steps": 1, "micro_batch_tokens": MAX_TOKENS},
            "reward": [{"function": "exact_answer"}], **options,
        })  # fmt: skip
        reference = Reference(state.network) if recipe.objective.beta else None  # type: ignore[arg-type, union-attr]
        learner = PolicyGradient(recipe, state, state.network, reference, world=world)  # type: ignore[arg-type]
        of = groups or scored
        return lambda part: learner.updates([[of(i) for i in part]])

    return make


def scored(number: int) -> ScoredGroup:
    """Two answers of unequal length; the second group of a process carries no gradient."""
    rewards = (1.0, 1.0) if number in (1, 6) else (1.0, 0.1 * number)

    def said(length: int) -> Completion:
        ids = (5 + number, *[6 + length] * length, 2)
        return Completion.one_turn(ids, "x", (-0.5,) * len(ids), "stop")

    answered = (said(1 + number % 3), said(2 + number % 3))
    rollout = Rollout(Task("p", {}, Origin("t", number)), (1, 4 + number), answered)
    return ScoredGroup(rollout, tuple(Score(r, {"f": r}) for r in rewards))


STEPS: dict[str, Make] = {
    "supervised": supervised,
    "replay": replayed,
    "dpo": pairs(PairRule("dpo", DpoObjective())),
    "bco_pair": pairs(PairRule("bco_pair", PairObjective())),
    "aot": pairs(PairRule("aot", AotObjective())),
    "kto": kto,
    "grpo": gradient("grpo", objective={"beta": 0.05}),
    "dapo": gradient("dapo"),
    "reinforce_pp": gradient("reinforce_pp"),
}


@pytest.mark.parametrize("name", STEPS)
def test_two_processes_take_the_step_of_one(name: str, policy: Policy) -> None:
    (gradient_alone, row), both = together(policy, STEPS[name], 8)
    for gradient_of_two, logged in both:
        error = (gradient_of_two - gradient_alone).norm() / gradient_alone.norm()
        assert error <= 2e-5, name
        assert logged.keys() == row.keys()
        for metric, value in row.items():
            assert logged[metric] == pytest.approx(value, rel=1e-4, abs=1e-6), metric


@pytest.mark.parametrize("name", ["reinforce_pp", "grpo"])
def test_a_process_that_has_nothing_to_learn_waits_for_nobody(name: str, policy: Policy) -> None:
    """Its answers were all cut and are masked; the other's batch statistics are those of one."""

    def cut(number: int) -> ScoredGroup:
        group = scored(number)
        if number > 2:
            return group
        lost = tuple(replace(c, finish="length") for c in group.rollout.completions)
        return replace(group, rollout=replace(group.rollout, completions=lost))

    masked = {"rollout": {"mask_truncated": True}}
    (gradient_alone, _), both = together(policy, gradient(name, groups=cut, **masked), 8)
    for gradient_of_two, _ in both:
        assert (gradient_of_two - gradient_alone).norm() <= 2e-5 * gradient_alone.norm()


def test_processes_agree_that_a_step_is_not_finite(policy: Policy) -> None:
    """An infinite loss with finite gradients is seen by one process alone; none of them steps."""

    def infinite(state: TrainState, world: World) -> Callable[[Sequence[int]], Iterable[Update]]:
        def updates(part: Sequence[int]) -> Iterable[Update]:
            (update,) = supervised(state, world)(part)
            if part[0] == 0:
                return [update]

            def losses(counts: Counts) -> list[Callable[[], Loss]]:
                first, *others = update.losses(counts)
                return [lambda: Loss(first().value + float("inf"), {}), *others]

            return [replace(update, losses=losses)]

        return updates

    table, parts = Table(), [range(3), range(3, 8)]
    with ThreadPoolExecutor(2) as threads:
        running = [
            threads.submit(step, policy, infinite, part, OneOfTwo(table, rank))
            for rank, part in enumerate(parts)
        ]
        for future in running:
            with pytest.raises(NotFiniteError, match="step 1: not finite"):
                future.result()


def test_a_step_that_divides_by_its_own_counts_is_noticed(policy: Policy) -> None:
    """The planted fault: each process divides by the tokens that it counts itself."""

    def selfish(state: TrainState, world: World) -> Callable[[Sequence[int]], Iterable[Update]]:
        def updates(part: Sequence[int]) -> Iterable[Update]:
            (update,) = supervised(state, world)(part)
            return [replace(update, losses=lambda counts: update.losses(update.counts))]

        return updates

    (gradient_alone, _), both = together(policy, selfish, 8)
    assert (both[0][0] - gradient_alone).norm() > 0.1 * gradient_alone.norm()
