"""The same numbers on a CUDA device. Run with `pytest -m gpu` where there is one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from conftest import metrics
from sampling import engine_of, sample
from strop.engines.engine import Sampling
from strop.model.load import load_policy
from strop.model.logprobs import padded_scores, tree_scores
from strop.model.tree import lay_out
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.model import ModelRecipe
from strop.recipe.train.run import OptimRecipe
from strop.train.loop.optim import build_optimizer
from strop.train.loop.state import TrainState
from strop.train.loop.updater import Updater
from strop.train.methods.supervised import SupervisedMethod
from strop.train.monitor.profile import Profile
from strop.train.run import train
from test_sampler import prompts
from test_tree import model_of, tree_of

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


def test_greedy_is_the_cpus() -> None:
    greedy = Sampling(temperature=0, max_tokens=20)
    ids = []
    for device in ("cpu", "cuda"):
        engine = engine_of(model_of("qwen3").to(device))
        groups = sample(engine, prompts(), group_size=2, sampling=greedy, seed=0, step=0)
        ids.append([[c.ids for c in group] for group in groups])
    assert ids[0] == ids[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_lowers_the_loss(model_folder: Path, dtype: str) -> None:
    recipe = ModelRecipe.model_validate({"path": str(model_folder), "dtype": dtype})
    policy = load_policy(recipe)
    assert policy.device.type == "cuda"
    optimizer = build_optimizer(policy, OptimRecipe(learning_rate=1e-3))
    method = SupervisedMethod(policy, [tree_of(random.Random(1), 2, 12)], 10**6)
    updater, losses = Updater(TrainState(policy, optimizer), 1.0), []
    for _ in range(5):
        metrics = updater.step(method.update([0]), learning_rate=1e-3, where="step")
        losses.append(metrics["loss"].result())
    assert losses[-1] < losses[0]


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
