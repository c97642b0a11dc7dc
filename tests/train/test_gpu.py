"""The same numbers on a CUDA device. Run with `pytest -m gpu` where there is one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Literal

import pytest
import torch

from strop.engines.engine import Sampling
from strop.model.kernels import use_kernels
from strop.model.load import load_policy
from strop.model.logprobs import (
    TreeScorer,
    compile_layers,
    padded_scores,
    tree_scores,
    tree_way,
)
from strop.model.tree import lay_out
from strop.model.ways import FEW_BLOCKS, FLEX, VARLEN, Way
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.model import ModelRecipe
from strop.recipe.train.run import OptimRecipe
from strop.train.loop.optim import build_optimizer
from strop.train.loop.state import TrainState
from strop.train.loop.updater import Updater
from strop.train.methods.supervised import SupervisedMethod
from strop.train.monitor.profile import Profile
from strop.train.run import train
from tests.support.families import model_of, tree_of
from tests.support.rollouts import prompts
from tests.support.runs import metrics
from tests.support.sampling import engine_of, sample

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("name", ["qwen3", "mistral", "gemma2"])
def test_tree_equals_padded_rows(name: str) -> None:
    model = model_of(name).cuda()
    draw = random.Random(0)
    batch = lay_out([tree_of(draw, 4, 14) for _ in range(4)], "cuda")
    by_tree, by_rows = tree_scores(model, batch), padded_scores(model, batch)
    assert (by_tree.logprobs_N - by_rows.logprobs_N).abs().max() <= 1e-4


@pytest.mark.parametrize(
    ("name", "way", "dtype", "apart"),
    [
        ("qwen3", VARLEN, torch.bfloat16, 0.05),
        ("mistral", VARLEN, torch.bfloat16, 0.05),
        ("mistral", FLEX, torch.float32, 1e-4),
        ("gemma2", FLEX, torch.float32, 1e-4),
        ("gpt_oss", FLEX, torch.float32, 1e-4),
    ],
)
def test_every_way_equals_padded_rows(
    name: str, way: Way, dtype: torch.dtype, apart: float
) -> None:
    """Values and gradients; in bfloat16 padded rows are themselves so far from float32's."""
    model = model_of(name).cuda()
    batch = lay_out([tree_of(random.Random(seed), 4, 40) for seed in range(4)], "cuda")
    exact = padded_scores(model, batch).logprobs_N
    exact.sum().backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    with torch.autocast("cuda", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = tree_scores(model, batch, way=way).logprobs_N
    found.sum().backward()
    slope = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert (found - exact).abs().mean() <= apart
    assert (slope - expected).norm() <= max(1e-3, apart) * expected.norm()


def test_the_ways_that_models_take() -> None:
    assert tree_way(model_of("qwen3").cuda(), bfloat16=True) == VARLEN
    assert tree_way(model_of("gpt_oss").cuda(), bfloat16=True) == FLEX


def test_greedy_is_the_cpus() -> None:
    greedy = Sampling(temperature=0, max_tokens=20)
    ids = []
    for device in ("cpu", "cuda"):
        engine = engine_of(model_of("qwen3").to(device))
        groups = sample(engine, prompts(), group_size=2, sampling=greedy, seed=0, step=0)
        ids.append([[c.ids for c in group] for group in groups])
    assert ids[0] == ids[1]


def five_losses(
    recipe: dict[str, str], optimizer_name: Literal["adamw", "adamw_8bit"] = "adamw"
) -> list[float]:
    policy = load_policy(ModelRecipe.model_validate(recipe))
    assert policy.device.type == recipe["device"]
    optim = OptimRecipe(learning_rate=1e-3, optimizer=optimizer_name)
    optimizer = build_optimizer(policy, optim)
    method = SupervisedMethod(policy, [tree_of(random.Random(1), 2, 12)], 10**6)
    updater = Updater(TrainState(policy, optimizer), 1.0)
    return [
        updater.step(method.update([0]), learning_rate=1e-3, where="step")["loss"].result()
        for _ in range(5)
    ]


@pytest.mark.parametrize(("dtype", "apart"), [("float32", 1e-3), ("bfloat16", 0.03)])
def test_five_steps_are_those_of_the_cpu(model_folder: Path, dtype: str, apart: float) -> None:
    """Losses fall as they do in float32 on the processor, not merely somehow."""
    expected = five_losses({"path": str(model_folder), "device": "cpu", "dtype": "float32"})
    found = five_losses({"path": str(model_folder), "device": "cuda", "dtype": dtype})
    assert expected[-1] < 0.97 * expected[0]
    assert found == pytest.approx(expected, rel=apart)


def test_moments_of_eight_bits_train_as_on_the_cpu(wide_folder: Path) -> None:
    pytest.importorskip("bitsandbytes")
    on_cpu = five_losses({"path": str(wide_folder), "device": "cpu"}, "adamw_8bit")
    found = five_losses({"path": str(wide_folder), "device": "cuda"}, "adamw_8bit")
    assert on_cpu[-1] < 0.97 * on_cpu[0]
    assert found == pytest.approx(on_cpu, rel=3e-3)


@pytest.mark.parametrize(
    "method", ["sft", "dpo", "aot", "kto", "reward_model", "grpo", "ppo", "online_dpo"]
)
def test_methods_take_the_cpus_first_step(method: str, recipes: dict[str, Path]) -> None:
    """The same loss and gradient norm on both devices, in forwards of 90 tokens."""
    rows = []
    for device in ("cpu", "cuda"):
        options = [f"model.device={device}", f"output=runs/{device}", "run.steps=1",
                   "run.micro_batch_tokens=90"]  # fmt: skip
        rows += metrics(train(load_recipe(recipes[method], options)).parent)
    on_cpu, on_cuda = rows
    assert on_cuda["loss"] == pytest.approx(on_cpu["loss"], rel=1e-3, abs=1e-4)
    assert on_cuda["grad_norm"] == pytest.approx(on_cpu["grad_norm"], rel=1e-2)


def test_a_profile_sees_the_device(recipes: dict[str, Path]) -> None:
    """Kernels are counted, and the time they take stays in the phase that queued them."""
    found: list[Profile] = []
    train(load_recipe(recipes["grpo"]), profile=2, on_profile=found.append)
    (profile,) = found
    assert profile.trace.device_idle is not None
    assert 0 < profile.trace.device_idle < 1
    assert profile.phases["backward"].seconds > profile.phases["idle"].seconds


def test_compiled_layers_are_those_of_eager() -> None:
    """By the kernel for variable lengths, under autocast, as rows are trained."""
    model = model_of("qwen3").cuda().train()
    scorer = TreeScorer(model, bfloat16=True)
    assert scorer.way == VARLEN
    forwards = [[tree_of(random.Random(n), 3, 10 + 20 * n)] for n in range(5)]

    def read() -> list[tuple[torch.Tensor, torch.Tensor]]:
        found = []
        for trees in forwards:
            model.zero_grad()
            with torch.autocast("cuda", torch.bfloat16):
                logprobs_N = scorer(trees).logprobs_N
            logprobs_N.sum().backward()
            slopes = [p.grad.flatten() for p in model.parameters()]
            found.append((logprobs_N.detach(), torch.cat(slopes)))
        return found

    expected = read()
    layers = compile_layers(scorer, model)
    for (logprobs_N, slopes), (exact_N, exact) in zip(read(), expected, strict=True):
        assert (logprobs_N - exact_N).abs().mean() <= 0.05
        assert (slopes - exact).norm() <= 0.05 * exact.norm()
    assert layers.compilations == 1


@pytest.mark.parametrize(("name", "dtype", "apart"), [
    ("qwen3", torch.float32, 1e-4), ("qwen3", torch.bfloat16, 0.05),
    ("llama", torch.float32, 1e-4), ("mistral", torch.float32, 1e-4),
    ("gemma2", torch.float32, 1e-4),
])  # fmt: skip
def test_kernels_are_what_they_replace(name: str, dtype: torch.dtype, apart: float) -> None:
    """Values and gradients of the same weights; the head is strop's in both."""
    pytest.importorskip("liger_kernel")
    batch = lay_out([tree_of(random.Random(seed), 3, 40) for seed in range(3)], "cuda")
    found = []
    for fused in (False, True):
        model = model_of(name).cuda()
        if fused:
            use_kernels(model)
        with torch.autocast("cuda", torch.bfloat16, enabled=dtype == torch.bfloat16):
            logprobs_N = tree_scores(model, batch, way=FEW_BLOCKS).logprobs_N
        logprobs_N.sum().backward()
        slopes = torch.cat([p.grad.flatten() for p in model.parameters()])
        found.append((logprobs_N.detach(), slopes))
    (exact_N, exact), (logprobs_N, slopes) = found
    assert (logprobs_N - exact_N).abs().mean() <= apart
    assert (slopes - exact).norm() <= max(1e-3, apart) * exact.norm()
