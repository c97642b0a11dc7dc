"""Damaged, unwanted and unwritable checkpoints; one run a folder; a run stays the run it was."""

from __future__ import annotations

import json
import os
import resource
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from strop.errors import OutputError, TrainingError
from strop.files import LOCK, locked
from strop.model.load import load_policy
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.model import ModelRecipe
from strop.recipe.train.run import OptimRecipe
from strop.train.loop.optim import build_optimizer
from strop.train.loop.state import TrainState
from strop.train.preflight import space
from strop.train.run import train
from strop.train.rundir import writer
from strop.train.rundir.checkpoint import step_of
from strop.train.rundir.resume import checkpoint_to_resume
from tests.support.processes import Child
from tests.support.runs import Finished, break_off, final_weights, latest_checkpoint, metrics, same


def check_until_it_raises(writes: writer.Writer) -> None:
    """As the steps of a run do, for ten seconds at most."""
    for _ in range(1000):
        writes.check()
        time.sleep(0.01)


def damage(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "flipped":
        content[len(content) // 2] ^= 1
    else:
        del content[-100:]
    file.write_bytes(content)


class TestFault6Damaged:
    @pytest.mark.parametrize("how", ["flipped", "truncated"])
    def test_the_one_before_is_used_loudly(
        self, how: str, recipes: dict[str, Path], finished: Finished
    ) -> None:
        whole = finished("dpo")
        recipe = load_recipe(recipes["dpo"])
        run = break_off(recipe, 5)
        damage(run / "checkpoint-4/optimizer.safetensors", how)
        with pytest.warns(UserWarning, match=r"checkpoint-4: optimizer\.safetensors is damaged"):
            train(recipe, resume=True)
        assert same(final_weights(whole), final_weights(run))
        assert metrics(whole) == metrics(run)

    def test_all_damaged_is_an_error(self, recipes: dict[str, Path]) -> None:
        recipe = load_recipe(recipes["sft"])
        run = break_off(recipe, 5)
        (run / "checkpoint-4/manifest.json").write_text("[]")
        shutil.rmtree(run / "checkpoint-2")
        log = (run / "metrics.jsonl").read_bytes()
        with pytest.raises(OutputError, match=r"no checkpoint is whole \(checkpoint-4: "):
            train(recipe, resume=True)
        assert (run / "metrics.jsonl").read_bytes() == log


class TestFault7ResumeFrom:
    def test_a_damaged_one_is_refused(self, recipes: dict[str, Path], tmp_path: Path) -> None:
        run = break_off(load_recipe(recipes["sft"]), 5)
        damage(run / "checkpoint-4/model.safetensors", "flipped")
        asked = ["--resume-from", run / "checkpoint-4"]
        child = Child(["train", recipes["sft"], *asked], tmp_path / "said")
        assert child.end() == 2
        assert "model.safetensors is damaged" in child.said
        assert "Traceback" not in child.said
        assert (run / "checkpoint-2").is_dir()

    def test_an_older_one_drops_the_later(self, recipes: dict[str, Path]) -> None:
        recipe = load_recipe(recipes["sft"])
        run = break_off(recipe, 5)
        steps: list[int] = []
        train(
            recipe,
            resume_from=run / "checkpoint-2",
            on_start=lambda prepared, step: steps.append(step),
            on_step=lambda record: steps.append(record.step),
        )
        assert steps == [2, 3, 4, 5, 6]
        assert [row["step"] for row in metrics(run)] == [1, 2, 3, 4, 5, 6]

    def test_another_runs_is_refused(self, recipes: dict[str, Path]) -> None:
        other = break_off(load_recipe(recipes["sft"], ["output=runs/other"]), 3)
        recipe = load_recipe(recipes["sft"])
        break_off(recipe, 3)
        with pytest.raises(OutputError, match=r"is no checkpoint of the run in"):
            train(recipe, resume_from=other / "checkpoint-2")

    @pytest.mark.parametrize(
        ("sharded", "named"), [(False, "at this checkpoint"), (True, "at its final/")]
    )
    def test_of_a_finished_run_is_refused(
        self, finished: Finished, tmp_path: Path, sharded: bool, named: str
    ) -> None:
        """The message names a folder that can be loaded as a model."""
        run = shutil.copytree(finished("sft"), tmp_path / "run", symlinks=True)
        checkpoint = run / "checkpoint-6"
        if sharded:
            (checkpoint / "parts").mkdir()
        with pytest.raises(OutputError, match="the run is finished") as refused:
            checkpoint_to_resume(run, checkpoint)
        assert named in str(refused.value)


class TestFault5DiskFull:
    """A limit on the size of a file (`RLIMIT_FSIZE`) fails a write as a full disk does."""

    def test_while_saving(self, recipes: dict[str, Path], tmp_path: Path) -> None:
        options = ["--set", "run={steps: 4000, batch_size: 4, save_every: 20}"]
        run = recipes["sft"].parent / "runs/sft"
        child = Child(["train", recipes["sft"], *options], tmp_path / "said")
        child.until(lambda: (run / "latest").exists())
        small = 100_000
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (small, small))
        assert child.end() == 1
        assert "could not be written: " in child.said
        assert "make room, then go on with --resume" in child.said
        assert "Traceback" not in child.said
        assert not list(run.glob(".*"))
        kept = latest_checkpoint(run)
        assert kept is not None
        assert f"{kept.name} is whole" in child.said

    def test_is_seen_before_the_first_step(
        self, recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = shutil.disk_usage("/")._replace(free=1_000_000)
        monkeypatch.setattr(space.shutil, "disk_usage", lambda path: usage)
        recipe = load_recipe(recipes["sft"])
        with pytest.raises(OutputError, match=r"needs about \d\.\d MB .* and 1\.0 MB are free"):
            train(recipe)
        assert not (Path(recipe.output) / "metrics.jsonl").exists()

    def test_the_estimate_is_near(self, recipes: dict[str, Path], model_folder: Path) -> None:
        """At its fullest: two kept, one that is written, the final model."""
        recipe = load_recipe(recipes["sft"])
        run = train(recipe).parent
        policy = load_policy(ModelRecipe(path=str(model_folder)))
        state = TrainState(policy, build_optimizer(policy, OptimRecipe(learning_rate=1.0)))
        one, final = (
            sum(file.stat().st_size for file in folder.glob("*.safetensors"))
            for folder in (run / "checkpoint-6", run / "final")
        )
        shutil.rmtree(run)
        needed = space.needed_bytes(state, recipe, run, 6)
        assert needed == pytest.approx(3 * one + final, rel=0.1)


class TestFault12TwoRuns:
    def test_the_second_names_the_first(self, recipes: dict[str, Path]) -> None:
        recipe = load_recipe(recipes["sft"])
        host = os.uname().nodename
        with locked(Path(recipe.output)):
            for resume in (False, True):
                with pytest.raises(OutputError, match=rf"process {os.getpid()} on host {host}"):
                    train(recipe, resume=resume)
        assert train(recipe).is_dir()

    def test_while_one_trains(self, recipes: dict[str, Path]) -> None:
        recipe = load_recipe(recipes["sft"])
        refused = []

        def on_step(record: Any) -> None:
            with pytest.raises(OutputError, match="another run works in this folder"):
                train(recipe, overwrite=True)
            refused.append(record.step)

        run = train(recipe, on_step=on_step).parent
        assert refused == [1, 2, 3, 4, 5, 6]
        assert not (run / LOCK).exists()

    def test_a_killed_ones_file_does_not_block(self, recipes: dict[str, Path]) -> None:
        recipe = load_recipe(recipes["sft"])
        folder = Path(recipe.output)
        folder.mkdir(parents=True)
        owner = {"pid": 1, "host": "elsewhere", "started": "2026-01-01T00:00:00+00:00"}
        (folder / LOCK).write_text(json.dumps(owner))
        assert train(recipe).is_dir()


def test_fault_14_the_clock_jumps_back(
    recipes: dict[str, Path], finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither steps, nor their times, nor which checkpoint is the newest ask what time it is."""
    whole = finished("grpo")
    now = time.time()

    def backwards() -> float:
        nonlocal now
        now -= 3600
        return now

    monkeypatch.setattr(time, "time", backwards)
    recipe = load_recipe(recipes["grpo"])
    run = break_off(recipe, 5)
    os.utime(run / "checkpoint-4", (0, 0))
    starts: list[int] = []
    train(recipe, resume=True, on_start=lambda prepared, step: starts.append(step))
    assert starts == [4]
    assert same(final_weights(whole), final_weights(run))
    assert metrics(whole) == metrics(run)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < row["sampling_time"] < row["step_time"] < 60 for row in rows)


class TestChangedRun:
    def test_each_change_is_told(self, recipes: dict[str, Path]) -> None:
        break_off(load_recipe(recipes["sft"]), 3)
        other = load_recipe(recipes["sft"], ["seed=4", "optim.learning_rate=2e-4"])
        told = r"\n    seed: 3 -> 4\n    optim\.learning_rate: 0\.0001 -> 0\.0002\n"
        with pytest.raises(OutputError, match=told):
            train(other, resume=True)

    def test_of_data_which_file(self, recipes: dict[str, Path]) -> None:
        recipe = load_recipe(recipes["sft"])
        break_off(recipe, 3)
        data = recipes["sft"].parent / "sft.jsonl"
        data.write_text(data.read_text() + data.read_text().splitlines()[0] + "\n")
        told = r"data \S*/sft\.jsonl: sha256 [0-9a-f]+ -> [0-9a-f]+\n"
        with pytest.raises(OutputError, match=told):
            train(recipe, resume=True)

    def test_forced_is_recorded(self, recipes: dict[str, Path]) -> None:
        run = break_off(load_recipe(recipes["sft"]), 3)
        data = recipes["sft"].parent / "sft.jsonl"
        data.write_text(data.read_text() + data.read_text().splitlines()[0] + "\n")
        other = load_recipe(recipes["sft"], ["optim.learning_rate=2e-4"])
        train(other, force_resume=True)
        (forced,) = json.loads((run / "lineage.json").read_text())["forced"]
        assert forced["step"] == 2
        assert forced["changes"][0] == "optim.learning_rate: 0.0001 -> 0.0002"
        assert forced["changes"][1].startswith(f"data {data}: sha256 ")
        assert [row["step"] for row in metrics(run)] == [1, 2, 3, 4, 5, 6]

    def test_a_model_that_does_not_fit_leaves_the_run_as_it_was(
        self, recipes: dict[str, Path]
    ) -> None:
        """An adapter cannot go on from a full model's checkpoint; the finished run stays whole."""
        run = train(load_recipe(recipes["sft"])).parent
        before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
        longer = load_recipe(recipes["sft"], ["model.lora={rank: 2}", "run.steps=8"])
        with pytest.raises(OutputError, match="the checkpoint does not fit the model"):
            train(longer, force_resume=True)
        after = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
        assert {p: b for p, b in after.items() if p in before} == before
        train(load_recipe(recipes["sft"]), resume=True)

    def test_a_copy_of_a_checkpoint_is_none(self, recipes: dict[str, Path]) -> None:
        run = break_off(load_recipe(recipes["sft"]), 3)
        shutil.copytree(run / "checkpoint-2", run / "checkpoint-2-backup")
        train(load_recipe(recipes["sft"]), resume=True)
        assert (run / "checkpoint-2-backup/manifest.json").exists()

    def test_an_untouched_run_has_nothing_forced(self, recipes: dict[str, Path]) -> None:
        recipe = load_recipe(recipes["sft"])
        run = break_off(recipe, 3)
        train(recipe, force_resume=True)
        assert "forced" not in json.loads((run / "lineage.json").read_text())


class TestWriter:
    @pytest.fixture
    def state(self, model_folder: Path) -> TrainState:
        policy = load_policy(ModelRecipe(path=str(model_folder)))
        return TrainState(policy, build_optimizer(policy, OptimRecipe(learning_rate=1.0)), step=1)

    def test_a_step_waits_for_the_copy_alone(
        self, state: TrainState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The disk stands still; training goes on, and what is written is what was."""
        disk, write = threading.Event(), writer.write_checkpoint

        def slow(*args: Any, **options: Any) -> None:
            assert disk.wait(60)
            write(*args, **options)

        monkeypatch.setattr(writer, "write_checkpoint", slow)
        first = state.network.trainable()[0]
        before = first.detach().clone()
        with writer.Writer(tmp_path, 2, 0) as writes:
            writes.save(state, best=None)
            assert not list(tmp_path.iterdir())
            with torch.no_grad():
                first += 1
            disk.set()
        saved = load_file(tmp_path / "checkpoint-1/model.safetensors")
        name = next(n for n, p in state.network.model.named_parameters() if p is first)
        assert torch.equal(saved[name], before)

    def test_an_error_comes_up_at_the_next_step(
        self, state: TrainState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*args: Any, **options: Any) -> None:
            (tmp_path / ".checkpoint-1.tmp").mkdir()
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(writer, "write_checkpoint", full)
        with writer.Writer(tmp_path, 2, 0) as writes:
            writes.save(state, best=None)
            with pytest.raises(TrainingError, match=r"step 1 could not be written: .*No space"):
                check_until_it_raises(writes)
        assert not list(tmp_path.iterdir())

    def test_a_step_that_was_undone_is_saved_again(self, state: TrainState, tmp_path: Path) -> None:
        with writer.Writer(tmp_path, 2, 0) as writes:
            for step in (1, 2):
                state.step = step
                writes.save(state, best=None)
            assert step_of(writes.roll_back(2)) == 1
            writes.save(state, best=None)
        assert step_of(latest_checkpoint(tmp_path)) == 2
