"""Every method, through the real recipe, loop and files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from strop.recipe.loading.load import load_recipe
from strop.recipe.train.methods import METHODS
from strop.train.build import build_loop, build_state
from strop.train.preflight.prepare import prepare
from strop.train.run import train
from tests.support.models import Recorder
from tests.support.runs import OFFLINE, ONLINE, Finished, break_off, final_weights, metrics, same

EVERY = pytest.mark.parametrize("method", [*OFFLINE, *ONLINE], scope="module")
"""All tests of a method in a row: they look at one run of it."""


def test_every_method_is_tried_here() -> None:
    assert sorted(METHODS) == sorted([*OFFLINE, *ONLINE])


def options_of(method: str) -> list[str]:
    """Four steps; where there is a reference that follows the policy, it does."""
    return ["run.steps=4", *(["objective.refresh_every=2"] if method in ("grpo", "rloo") else [])]


@EVERY
def test_moves_the_weights_and_leaves_a_loadable_model(
    method: str, finished: Finished, model_folder: Path
) -> None:
    run = finished(method, *options_of(method))
    kind = AutoModelForSequenceClassification if method == "reward_model" else AutoModelForCausalLM
    model = kind.from_pretrained(run / "final")
    start = dict(AutoModelForCausalLM.from_pretrained(model_folder).named_parameters())
    still = [n for n, p in model.named_parameters() if n in start and torch.equal(p, start[n])]
    assert not still
    for name in ("recipe.resolved.yaml", "env.json", "lineage.json", "samples.jsonl"):
        assert (run / name).stat().st_size > 0
    rows = metrics(run)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert {"loss", "grad_norm", "learning_rate"} <= rows[0].keys()
    assert all(row["grad_norm"] > 0 for row in rows)


@EVERY
def test_stopped_and_resumed_is_bit_identical(
    method: str, finished: Finished, recipes: dict[str, Path]
) -> None:
    whole = finished(method, *options_of(method))
    recipe = load_recipe(recipes[method], options_of(method))
    break_off(recipe, 3)  # a checkpoint stands at 2
    parts = train(recipe, resume=True).parent
    assert same(final_weights(whole), final_weights(parts))
    assert metrics(whole) == metrics(parts)


def gradients(recipe_path: Path, *overrides: str) -> tuple[list[torch.Tensor], dict[str, float]]:
    """The gradients of all updates of a recipe's first step, and what it logged."""
    always = ["run.steps=1", "optim.max_grad_norm=1e9"]
    recipe = load_recipe(recipe_path, [*always, *overrides])
    prepared = prepare(recipe, resume=False, overwrite=True, force=True)
    prepared.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    state = build_state(recipe, recipe.model)
    recorder = Recorder(state.network.trainable())
    state.optimizer = recorder
    steps, _ = build_loop(state, prepared)
    return recorder.seen, dict(next(steps).metrics)


@EVERY
def test_how_a_step_is_cut_into_forwards_changes_nothing(
    method: str, recipes: dict[str, Path]
) -> None:
    size = "run.batch_size=8"
    (whole,), row = gradients(recipes[method], size, "run.micro_batch_tokens=100000")
    (parts,), cut = gradients(recipes[method], size, "run.micro_batch_tokens=90", "output=parts")
    assert whole.norm() > 1e-4
    assert (whole - parts).norm() <= 2e-5 * whole.norm()
    assert cut["loss"] == pytest.approx(row["loss"], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("damage", ["cut", "empty", "garbled"])
def test_a_damaged_reference_is_computed_again(
    damage: str, finished: Finished, recipes: dict[str, Path]
) -> None:
    whole = finished("dpo", *options_of("dpo"))
    recipe = load_recipe(recipes["dpo"], options_of("dpo"))
    kept = break_off(recipe, 3) / "reference.safetensors"
    content = kept.read_bytes()
    broken = {"cut": content[:-7], "empty": b"", "garbled": b"x" * len(content)}
    kept.write_bytes(broken[damage])
    with pytest.warns(UserWarning, match=r"reference\.safetensors is damaged"):
        again = train(recipe, resume=True).parent
    assert kept.read_bytes() == content
    assert same(final_weights(whole), final_weights(again))
