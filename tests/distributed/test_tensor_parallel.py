"""Matrices that several real processes compute in parts: models of several families, sampling,
whole runs, and what is refused."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
import yaml
from transformers import AutoModelForCausalLM

from strop.demo.model import train_tokenizer
from strop.demo.world import all_equations, solution, user
from strop.distributed.world import ALONE, World
from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Sampling, requests_of
from strop.engines.local.engine import LocalEngine
from strop.errors import ModelError, RecipeError, UsageError
from strop.losses.metrics import Mean
from strop.model.activations import kept_by_a_token
from strop.model.load import load_policy
from strop.model.logprobs import TreeScorer
from strop.model.network import Policy
from strop.model.sharding import gathered, mesh_of, own_part, whole_weights
from strop.model.tensor_parallel import divide, expect_plan
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.model import ModelRecipe
from strop.recipe.train.run import DistributedRecipe
from strop.train.preflight.alike import expect_own_engine, expect_world
from strop.train.run import train
from strop.types import Origin, Task
from tests.support.families import MODELS, SHAPE, VOCABULARY, model_of, tree_of
from tests.support.gloo import Raised, in_processes
from tests.support.models import sharp_model
from tests.support.runs import (
    EQUATIONS,
    final_weights,
    metrics,
    same,
    write_jsonl,
    write_recipes,
)

TENSOR = DistributedRecipe(tensor=2)
BOTH = DistributedRecipe(tensor=2, shard="full")

PHI = hf.Phi3Config(**SHAPE, pad_token_id=0)
DENSE = ("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "phi3")
"""Biases, norms of queries and keys, windows, soft-caps, scaled embeddings, packed matrices whose
outputs are put together again."""


def dense(name: str, vocabulary: int) -> Any:
    """A float64 model of a family, in training mode."""
    torch.manual_seed(0)
    model = hf.Phi3ForCausalLM(PHI) if name == "phi3" else model_of(name)
    if vocabulary != VOCABULARY:
        model.resize_token_embeddings(vocabulary, mean_resizing=False)
    return model.double().train()


Read = tuple[torch.Tensor, dict[str, torch.Tensor], int]


def read_all(world: World, vocabulary: int, cut: DistributedRecipe) -> dict[str, Read]:
    """Of each family the log-probs of trees, the gradient, and how many weights a process has."""
    draw, seen = random.Random(3), {}
    trees = [tree_of(draw, branches, 9) for branches in (1, 3)]
    for name in DENSE:
        model = dense(name, vocabulary)
        policy = Policy(model, None, False, TreeScorer(model))
        if world.size > 1:
            divide(policy, cut, mesh_of(cut, world.size, "cpu"))
        logprobs_N = policy.score(trees).logprobs_N
        weight_N = torch.linspace(-1, 2, len(logprobs_N))
        (weight_N * logprobs_N).sum().backward()
        gradients = {n: gathered(own(p.grad)) for n, p in model.named_parameters()}
        held = sum(own_part(p).numel() for p in model.parameters())
        seen[name] = logprobs_N.detach(), gradients, held
    return seen


def own(gradient: torch.Tensor | None) -> torch.Tensor:
    assert gradient is not None
    return gradient


@pytest.mark.parametrize("vocabulary", [VOCABULARY, VOCABULARY + 1])
def test_families_have_the_gradient_of_one_process(vocabulary: int) -> None:
    """A vocabulary that cannot be divided stays whole; tied, scaled and separate embeddings."""
    alone = read_all(ALONE, vocabulary, TENSOR)
    for several in in_processes(2, read_all, vocabulary, TENSOR):
        assert isinstance(several, dict), several
        for name, (logprobs_N, gradients, held) in alone.items():
            found_N, found, part = several[name]
            assert torch.allclose(found_N, logprobs_N, atol=1e-6), name
            for weight, gradient in gradients.items():
                apart = (found[weight] - gradient).norm() / max(1e-9, gradient.norm())
                assert apart < 1e-6, (name, weight)  # norms are float32
            # norms are whole, and so is a vocabulary of 97
            assert 0.5 < part / held < (0.51 if vocabulary % 2 == 0 else 0.63), name


def sampled(world: World, folder: str, cut: DistributedRecipe) -> list[Any]:
    """Answers to prompts of several lengths, what a token keeps, and log-probs by the trainer."""
    policy = load_policy(ModelRecipe(path=folder))
    if world.size > 1:
        divide(policy, cut, mesh_of(cut, world.size, "cpu"))
    kept = kept_by_a_token(policy)
    prompts = [
        PromptedTask(Task("", {}, Origin("tasks.jsonl", n)), tuple(range(3, 6 + 2 * n)))
        for n in range(3)
    ]
    requests = requests_of(prompts, Sampling(max_tokens=9), DrawKey(0, "training", 1), 3)
    with whole_weights(policy):
        answers = dict(LocalEngine("in memory", policy).generate(requests))
    return [kept, [answers[n] for n in range(len(requests))]]


@pytest.fixture
def even(tmp_path: Path) -> Path:
    """A small model whose vocabulary of 324 two processes can divide."""
    texts = [text for e in all_equations()[::7] for text in (e.question, solution(e))]
    tokenizer = train_tokenizer(texts, vocabulary=324)
    folder = tmp_path / "even"
    sharp_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("count", "cut"), [(2, TENSOR), (4, BOTH)])
def test_answers_are_those_of_one_process(count: int, cut: DistributedRecipe, even: Path) -> None:
    kept, alone = sampled(ALONE, str(even), cut)
    for several in in_processes(count, sampled, str(even), cut):
        assert isinstance(several, list), several
        # heads and the MLP's inner width are halved, hidden states and norms are not
        assert 0.5 < several[0] / kept < 0.9
        for found, answer in zip(several[1], alone, strict=True):
            assert found.ids == answer.ids
            assert len(answer.ids) > 1
            assert found.sampler_logprobs() == pytest.approx(answer.sampler_logprobs(), abs=1e-5)


def run(world: World, path: Path, options: Sequence[str], dies_at: int | None) -> None:
    def on_step(record: Any) -> None:
        if record.step == dies_at:
            os._exit(9)

    recipe = load_recipe(path, options)
    train(recipe, resume=Path(recipe.output).exists(), force=True, world=world, on_step=on_step)


AS_MANY = "run.distributed.tensor=2"
SHARDED = "run.distributed.shard=full"
Start = tuple[int, Sequence[str], int | None]
"""So many processes, their options, and the step at which they are killed."""


def started(path: Path, output: Path, starts: Sequence[Start], *more: str) -> Path:
    """One run of several starts."""
    for count, options, dies_at in starts:
        shared = [f"output={output}", "run.steps=6", *more, *options]
        if count == 1:
            run(ALONE, path, shared, dies_at)
        else:
            every = in_processes(count, run, path, shared, dies_at)
            assert dies_at is not None or every == [None] * count
    return output


def furthest(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> float:
    assert left.keys() == right.keys()
    return max(float((left[n].float() - right[n].float()).abs().max()) for n in left)


def test_killed_and_resumed(even: Path, tmp_path: Path) -> None:
    """By as many to the bit, then by others; `final` is one ordinary model."""
    path = write_recipes(tmp_path, even)["sft"]
    alone = started(path, tmp_path / "alone", [(1, [], None)])
    unbroken = started(path, tmp_path / "unbroken", [(2, [AS_MANY], None)])
    again = started(path, tmp_path / "again", [(2, [AS_MANY], 3), (2, [AS_MANY], None)])
    ended = final_weights(unbroken)
    assert same(ended, final_weights(again))
    assert furthest(ended, final_weights(alone)) < 1e-5
    for row, also in zip(metrics(alone), metrics(unbroken), strict=True):
        assert row["grad_norm"] == pytest.approx(also["grad_norm"], rel=1e-4)
    saved = AutoModelForCausalLM.from_pretrained(unbroken / "final")
    assert type(saved).__name__ == "Qwen3ForCausalLM"
    assert torch.equal(saved.state_dict()["lm_head.weight"], ended["model.embed_tokens.weight"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "more"),
    [("dpo", ["model.gradient_checkpointing=true"]), ("ppo", []), ("reward_model", [])],
)
def test_resumed_by_others(method: str, more: list[str], even: Path, tmp_path: Path) -> None:
    path = write_recipes(tmp_path, even)[method]
    alone = started(path, tmp_path / "alone", [(1, [], None)], *more)
    several = [(4, [AS_MANY, SHARDED], 3), (2, [AS_MANY], 5), (1, [], None)]
    parts = started(path, tmp_path / "several", several, *more)
    back = [(2, [], 3), (4, [AS_MANY], 5), (4, [AS_MANY, SHARDED], None)]
    others = started(path, tmp_path / "back", back, *more)
    for found in (parts, others):
        assert furthest(final_weights(found), final_weights(alone)) < 1e-5


def test_an_online_run_samples_for_itself(even: Path, tmp_path: Path) -> None:
    """Each tensor group its share of the prompts, and a suite that is measured in between."""
    path = write_recipes(tmp_path, even)["grpo"]
    others = [e for e in all_equations()[7::53] if e not in EQUATIONS][:5]
    write_jsonl(tmp_path / "few.jsonl", [{"prompt": user(e)} for e in others])
    (tmp_path / "letters.py").write_text(
        "def letters(prompts, completions, **columns):\n"
        "    return [sum(map(ord, c[-1]['content'])) for c in completions]  # of every letter\n"
    )
    task = {
        "kind": "generate",
        "name": "said",
        "data": "few.jsonl",
        "sampling": {"temperature": 1.0, "max_tokens": 6},
        "scores": [{"function": "letters", "file": "letters.py"}],
    }
    suite = tmp_path / "suite.yaml"
    suite.write_text(yaml.safe_dump({"name": "dev", "seed": 5, "tasks": [task]}))
    asked = ["run.steps=3", "run.batch_size=3"]
    asked += [f"dev={{suite: {suite}, metric: said/letters, every: 2}}"]
    alone = started(path, tmp_path / "alone", [(1, [], None)], *asked)
    several = started(path, tmp_path / "several", [(4, [AS_MANY], None)], *asked)
    rows = list(zip(metrics(alone), metrics(several), strict=True))
    assert [row["step"] for row, _ in rows if row.get("dev/said/letters", 0) > 99] == [0, 2, 3]
    for row, also in rows:
        assert also.get("dev/said/letters") == pytest.approx(row.get("dev/said/letters"))
        if row["step"]:
            assert also["reward"] == pytest.approx(row["reward"])
            assert also["completions/mean_length"] == row["completions/mean_length"]
            assert also["loss"] == pytest.approx(row["loss"], rel=1e-3, abs=1e-6)
    assert furthest(final_weights(alone), final_weights(several)) < 1e-4


def summed(world: World) -> Any:
    """What two tensor groups of two make of counts, values and metrics."""
    grouped = world.in_groups(2)
    values_N = torch.full((grouped.data_rank + 1,), float(grouped.data_rank))
    everyone = grouped.gathered(values_N)
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.full((2,), float(10 + world.rank))
    grouped.add_gradients([parameter])
    return {
        "place": (grouped.data_rank, grouped.data_size, grouped.leads),
        "total": grouped.total({"tokens": 10.0 + world.rank}),
        "values": (everyone.values_N.tolist(), everyone.own),
        "mean": grouped.merged({"loss": Mean(float(world.rank), 1)})["loss"].result(),
        "gradient": own(parameter.grad).tolist(),
        "first": grouped.first_group(lambda: world.rank if world.rank < 2 else 1 / 0),
    }


def test_a_tensor_group_counts_once() -> None:
    for rank, found in enumerate(in_processes(4, summed)):
        assert isinstance(found, dict), found
        place = rank // 2
        assert found["place"] == (place, 2, rank % 2 == 0)
        assert found["total"] == {"tokens": 10.0 + 12.0}
        assert found["values"] == ([0.0, 1.0, 1.0], slice(place, 1 + 2 * place))
        assert found["mean"] == 1.0  # of ranks 0 and 2
        # a process adds to the one that holds the same part of each matrix
        assert found["gradient"] == ([22.0, 22.0] if rank % 2 == 0 else [24.0, 24.0])
        assert found["first"] == 0


@contextmanager
def without_norms() -> Iterator[None]:
    """Qwen3's plan as it was before transformers knew of its norms of queries and keys."""
    plan = hf.Qwen3Config.base_model_tp_plan
    hf.Qwen3Config.base_model_tp_plan = {n: s for n, s in plan.items() if "_norm" not in n}
    try:
        yield
    finally:
        hf.Qwen3Config.base_model_tp_plan = plan


def divided_without(world: World, folder: str, cut: DistributedRecipe) -> None:
    with without_norms():
        policy = load_policy(ModelRecipe(path=folder))
        divide(policy, cut, mesh_of(cut, world.size, "cpu"))


@pytest.mark.parametrize(("count", "cut"), [(2, TENSOR), (4, BOTH)])
def test_a_plan_that_leaves_gradients_in_parts_is_refused(
    count: int, cut: DistributedRecipe, even: Path
) -> None:
    first, *others = in_processes(count, divided_without, str(even), cut)
    assert isinstance(first, Raised)
    assert first.kind == "ModelError"
    assert "layers.0.self_attn.q_norm.weight in parts" in first.said
    assert "upgrade transformers" in first.said
    assert [other.kind for other in others] == ["OtherProcessError"] * len(others)


@pytest.mark.parametrize(
    ("model", "tensor", "said"),
    [
        (lambda: hf.GPT2LMHeadModel(hf.GPT2Config(n_layer=1, n_embd=8, n_head=2)), 2, "no tensor"),
        (MODELS["gpt_oss"], 2, "no tensor parallel plan"),
        (lambda: hf.Qwen3MoeForCausalLM(hf.Qwen3MoeConfig(**SHAPE, num_experts=4)), 2, "experts"),
        (MODELS["qwen3"], 4, "does not divide num_key_value_heads"),
        (MODELS["qwen3"], 3, "does not divide model.layers.0.self_attn.q_proj.weight"),
        (lambda: hf.Phi3ForCausalLM(PHI), 64, "does not divide model.layers.0.mlp.down_proj"),
    ],
)
def test_models_that_cannot_be_computed_in_parts(model: Any, tensor: int, said: str) -> None:
    with torch.device("meta"), pytest.raises(ModelError, match=said) as refused:
        expect_plan(model(), tensor, "org/model")
    assert refused.value.where == "org/model"
    assert "run.distributed.tensor to 1" in str(refused.value)
    with torch.device("meta"):
        expect_plan(MODELS["qwen3"](), 2, "org/model")


class Of:
    """A world of so many processes, as far as a check looks at it."""

    def __init__(self, size: int) -> None:
        self.size = size


@pytest.mark.parametrize(
    ("options", "size", "said"),
    [
        ([AS_MANY], 1, "and this is one"),
        (["run.distributed.tensor=3"], 4, "4 processes are not groups of run.distributed.tensor 3"),
        ([AS_MANY, SHARDED], 2, "leaves nothing to cut by run.distributed.shard"),
        ([AS_MANY, "run.distributed={shard: hybrid, replicas: 2, tensor: 2}"], 4, "nothing to cut"),
        (["run.distributed={shard: hybrid, replicas: 2, tensor: 2}"], 6, "3 groups of 2 processes"),
        ([AS_MANY, "model.lora.rank=4"], 2, "model.lora adds to whole matrices"),
        ([AS_MANY, "model.lora.rank=4", "model.quantize=nf4"], 2, "adds to whole matrices"),
        ([AS_MANY, "optim.optimizer=muon"], 2, "muon works on whole matrices"),
        ([AS_MANY, "optim.optimizer=adamw_8bit"], 2, "moments of whole tensors"),
        ([AS_MANY, "model.kernels=liger"], 2, "not tried on matrices in parts"),
        ([AS_MANY, "run.compile=true"], 2, "run.distributed cuts the layers"),
        (["run.distributed={shard: full, cpu_offload: true, tensor: 2}"], 4, "exclude each other"),
        (["run.distributed.context=2"], 2, "no context parallelism"),
    ],
)
def test_worlds_that_do_not_fit(
    options: list[str], size: int, said: str, recipes: dict[str, Path]
) -> None:
    with pytest.raises(RecipeError, match=said):
        expect_world(load_recipe(recipes["sft"], options), Of(size))  # type: ignore[arg-type]


def test_engines_get_whole_weights_or_none(recipes: dict[str, Path], policy: Policy) -> None:
    served = ["rollout.engine={kind: vllm, url: 'http://127.0.0.1:1'}"]
    recipe = load_recipe(recipes["grpo"], [AS_MANY])
    with pytest.raises(RecipeError, match="vllm gets whole weights"):
        expect_world(load_recipe(recipes["grpo"], [AS_MANY, *served]), Of(2))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="an engine of your own gets whole weights"):
        expect_own_engine(recipe, LocalEngine("in memory", policy))
    expect_own_engine(recipe, None)
