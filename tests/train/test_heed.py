"""A run waits, goes on and ends as `control.json` says, and loses nothing by it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.distributed.world import ALONE
from strop.errors import StoppedBySignal
from strop.recipe.loading.load import load_recipe
from strop.tracking.control import CONTROL, want, wish_of
from strop.train.loop.signals import Signals
from strop.train.monitor import heed
from strop.train.run import train
from strop.train.rundir.directory import environment
from tests.support.runs import break_off, final_weights, metrics, same

MORE = ["run.steps=4"]


def wanting(folder: Path, step: int, wish: Any) -> Any:
    def on_step(record: Any) -> None:
        if record.step == step:
            want(folder, wish)

    return on_step


def test_a_wish_to_stop_saves_the_step_and_a_resumed_run_ends_the_same(
    recipes: dict[str, Path], tmp_path: Path
) -> None:
    whole = train(load_recipe(recipes["sft"], [*MORE, f"output={tmp_path / 'whole'}"])).parent
    recipe = load_recipe(recipes["sft"], MORE)
    folder = Path(recipe.output)
    with (
        pytest.warns(UserWarning, match=f"{CONTROL} asks this run to stop"),
        pytest.raises(StoppedBySignal) as stopped,
    ):
        train(recipe, on_step=wanting(folder, 2, "stop"))
    assert stopped.value.exit_code == 143
    assert (folder / "checkpoint-2").is_dir()
    assert wish_of(folder) == "go"
    train(recipe, resume=True)
    assert metrics(folder) == metrics(whole)
    assert same(final_weights(folder), final_weights(whole))


def test_a_paused_run_is_saved_and_goes_on_when_it_may(
    recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(recipes["sft"], MORE)
    folder = Path(recipe.output)
    looks: list[list[str]] = []

    def look(seconds: float) -> None:
        looks.append(sorted(one.name for one in folder.glob("checkpoint-*")))
        assert seconds == heed.POLL
        if len(looks) == 3:
            want(folder, "go")

    waits = heed.wait_while_paused
    monkeypatch.setattr(
        "strop.train.run.wait_while_paused",
        lambda signals, folder, world, step: waits(signals, folder, world, step, look),
    )
    with pytest.warns(UserWarning, match="paused after step 2, which is saved"):
        train(recipe, on_step=wanting(folder, 2, "pause"))
    assert looks == [["checkpoint-2"]] * 3
    assert [row["step"] for row in metrics(folder)] == [1, 2, 3, 4]


def test_a_wish_left_for_an_earlier_attempt_does_not_count(recipes: dict[str, Path]) -> None:
    recipe = load_recipe(recipes["sft"], [*MORE, "run.save_every=1"])
    want(break_off(recipe, 2), "stop")
    assert train(recipe, resume=True).is_dir()


def test_a_signal_ends_a_pause(tmp_path: Path) -> None:
    signals = Signals(between_steps=True)
    want(tmp_path, "pause")

    def arrives(seconds: float) -> None:
        signals.number = signal.SIGINT

    with pytest.warns(UserWarning, match="paused"):
        heed.wait_while_paused(signals, tmp_path, ALONE, 3, arrives)
    assert signals.number == signal.SIGINT


def test_a_run_notes_how_many_processes_it_has(
    recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that whoever resumes it starts as many: with others it would end otherwise."""
    run = train(load_recipe(recipes["sft"], ["run.steps=1"])).parent
    assert json.loads((run / "env.json").read_text())["processes"] == 1
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    assert environment()["processes"] == 4
