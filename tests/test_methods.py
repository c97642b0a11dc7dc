"""Every method, through the real recipe, loop and files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from conftest import OFFLINE, ONLINE, Recorder, metrics
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.methods import METHODS
from strop.train.build import build_loop, build_state
from strop.train.preflight.prepare import prepare
from strop.train.run import train
from strop.types import StepRecord


def test_every_method_is_tried_here() -> None:
    assert sorted(METHODS) == sorted([*OFFLINE, *ONLINE])


@pytest.mark.parametrize("method", [*OFFLINE, *ONLINE])
def test_moves_the_weights_and_leaves_a_loadable_model(
    method: str, recipes: dict[str, Path], model_folder: Path
) -> None:
    final = train(load_recipe(recipes[method], ["run.steps=3"]))
    kind = AutoModelForSequenceClassification if method == "reward_model" else AutoModelForCausalLM
    model = kind.from_pretrained(final)
    start = dict(AutoModelForCausalLM.from_pretrained(model_folder).named_parameters())
    still = [n for n, p in model.named_parameters() if n in start and torch.equal(p, start[n])]
    assert not still
    run = final.parent
    for name in ("recipe.resolved.yaml", "env.json", "lineage.json", "samples.jsonl"):
        assert (run / name).stat().st_size > 0
    rows = metrics(run)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert {"loss", "grad_norm", "learning_rate"} <= rows[0].keys()
    assert all(row["grad_norm"] > 0 for row in rows)


@pytest.mark.parametrize("method", [*OFFLINE, *ONLINE])
def test_stopped_and_resumed_is_bit_identical(method: str, recipes: dict[str, Path]) -> None:
    options = ["run.steps=4"]
    if method in ("grpo", "rloo"):
        options += ["objective.refresh_every=2"]
    whole = train(load_recipe(recipes[method], [*options, "output=runs/whole"]))
    recipe = load_recipe(recipes[method], [*options, "output=runs/parts"])

    class Stop(Exception):  # noqa: N818 - it is what it is
        pass

    def on_step(record: StepRecord) -> None:
        if record.step == 3:  # a checkpoint stands at 2
            raise Stop

    with pytest.raises(Stop):
        train(recipe, on_step=on_step)
    parts = train(recipe, resume=True)
    left, right = (load_file(folder / "model.safetensors") for folder in (whole, parts))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert metrics(whole.parent) == metrics(parts.parent)


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


@pytest.mark.parametrize("method", [*OFFLINE, *ONLINE])
def test_how_a_step_is_cut_into_forwards_changes_nothing(
    method: str, recipes: dict[str, Path]
) -> None:
    size = "run.batch_size=8"
    (whole,), row = gradients(recipes[method], size, "run.micro_batch_tokens=100000")
    (parts,), cut = gradients(recipes[method], size, "run.micro_batch_tokens=90", "output=parts")
    assert whole.norm() > 1e-4
    assert (whole - parts).norm() <= 2e-5 * whole.norm()
    assert cut["loss"] == pytest.approx(row["loss"], rel=1e-5, abs=1e-6)
