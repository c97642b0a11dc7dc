"""SIGTERM and SIGINT at every stage of a run: what is there is saved, and it ends with its code."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from strop.errors import StoppedBySignal
from strop.recipe.loading.load import load_recipe
from strop.train.run import train
from strop.train.rundir.checkpoint import step_of
from tests.support.processes import Child
from tests.support.runs import Finished, final_weights, latest_checkpoint, metrics, same

BOTH = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"]
)

SLEEPY = """
import pathlib, time

def shorter(prompts, completions, **columns):
    pathlib.Path({mark!r}).touch()
    time.sleep({seconds})
    return [-float(len(c[-1]["content"])) for c in completions]
"""
"""A reward that says when it is asked, and then takes its time."""

QUICK = SLEEPY.replace("pathlib.Path({mark!r}).touch()", "").replace("time.sleep({seconds})", "")


def rows(run: Path) -> list[int]:
    return [row["step"] for row in metrics(run)]


class TestFault3:
    @BOTH
    def test_in_training(
        self, number: int, code: int, recipes: dict[str, Path], tmp_path: Path
    ) -> None:
        options = ["--set", "run={steps: 4000, batch_size: 4}"]
        child = Child(["train", recipes["sft"], *options], tmp_path / "said")
        run = recipes["sft"].parent / "runs/sft"
        log = run / "metrics.jsonl"
        child.until(lambda: log.exists() and log.read_bytes().count(b"\n") > 2)
        child.signal(number)
        assert child.end() == code
        step = step_of(latest_checkpoint(run))
        assert step > 2
        assert rows(run) == list(range(1, step + 1))
        assert f"after step {step}; the state was saved" in child.said
        assert not list(run.glob(".*"))

    @BOTH
    def test_in_an_eval(
        self, number: int, code: int, model_folder: Path, recipes: dict[str, Path], tmp_path: Path
    ) -> None:
        """What was measured before it is kept: the next start asks for the rest alone."""
        own = "import pathlib, time\n\ndef evaluate(generate, seed):\n"
        own += f"    mark = pathlib.Path({str(tmp_path / 'asked')!r})\n"
        own += "    begun = mark.exists()\n    mark.touch()\n    time.sleep(0 if begun else 60)\n"
        (tmp_path / "own.py").write_text(own + "    yield {'item': 1, 'score': 1.0}\n")
        pairs = {"kind": "preference", "name": "edits", "data": "pairs.jsonl"}
        slow = {"kind": "python", "name": "own", "file": "own.py"}
        (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"name": "s", "tasks": [pairs, slow]}))
        out = tmp_path / "out"
        asked = ["eval", tmp_path / "suite.yaml", "--model", model_folder, "--output", out]
        child = Child(asked, tmp_path / "said")
        child.until((tmp_path / "asked").exists)
        child.signal(number)
        assert child.end() == code
        assert not out.exists()
        parts = (tmp_path / ".out.partial/parts.jsonl").read_text().splitlines()
        assert {json.loads(part)["job"] for part in parts} == {"edits"}
        child = Child(asked, tmp_path / "said")
        assert child.end() == 0, child.said
        assert json.loads((out / "summary.json").read_text())["scores"]["own"] == 1.0

    @BOTH
    def test_in_a_rollout(
        self, number: int, code: int, recipes: dict[str, Path], finished: Finished, tmp_path: Path
    ) -> None:
        """The steps so far are saved although none is due; the sleep of an hour is not waited for;
        the run that is resumed is the one that was never stopped."""
        whole = finished("grpo")
        asked, file = tmp_path / "asked", tmp_path / "rewards.py"
        quick = file.read_text()
        run = recipes["grpo"].parent / "runs/grpo"
        options = ["run.save_every=0"]
        file.write_text(SLEEPY.format(mark=str(asked), seconds=0.3))
        arguments = ["train", recipes["grpo"], "--set", *options]
        child = Child(arguments, tmp_path / "said")
        log = run / "metrics.jsonl"
        child.until(lambda: log.exists() and log.read_bytes().count(b"\n") == 3)
        asked.unlink()
        child.until(asked.exists)
        child.signal(number)
        began = time.monotonic()
        assert child.end() == code
        assert time.monotonic() - began < 20
        assert step_of(latest_checkpoint(run)) == 3
        assert rows(run) == [1, 2, 3]
        file.write_text(quick)
        stopped = load_recipe(recipes["grpo"], options)
        train(stopped, force_resume=True)  # the reward file says the same in other words
        assert same(final_weights(whole), final_weights(run))
        assert metrics(whole) == metrics(run)

    @BOTH
    def test_before_the_first_step(
        self, number: int, code: int, recipes: dict[str, Path], tmp_path: Path
    ) -> None:
        """In the first rollout: nothing is there to be saved, an hour is not waited for, and the
        same command starts again."""
        asked, file = tmp_path / "asked", tmp_path / "rewards.py"
        quick = file.read_text()
        file.write_text(SLEEPY.format(mark=str(asked), seconds=3600))
        child = Child(["train", recipes["grpo"]], tmp_path / "said")
        child.until(asked.exists)
        child.signal(number)
        assert child.end(30) == code
        assert "before its first step" in child.said
        file.write_text(quick)
        assert train(load_recipe(recipes["grpo"])).is_dir()

    @BOTH
    def test_in_the_warm_up(
        self, number: int, code: int, recipes: dict[str, Path], tmp_path: Path
    ) -> None:
        """While reference log-probs of many pairs are computed."""
        pairs = (tmp_path / "pairs.jsonl").read_text()
        (tmp_path / "pairs.jsonl").write_text(pairs * 200)
        run = recipes["dpo"].parent / "runs/dpo"
        options = ["--set", "run={epochs: 1, batch_size: 4, micro_batch_tokens: 150}"]
        child = Child(["train", recipes["dpo"], *options], tmp_path / "said")
        child.until(lambda: (run / "lineage.json").exists())
        child.signal(number)
        assert child.end(30) == code
        assert "before its first step" in child.said
        assert not (run / "reference.safetensors").exists()

    @BOTH
    def test_while_a_dev_suite_is_measured(
        self, number: int, code: int, recipes: dict[str, Path], tmp_path: Path
    ) -> None:
        """The measurement of a step that is made is waited for: step and score are saved."""
        asked = tmp_path / "asked"
        (tmp_path / "slow.py").write_text(
            SLEEPY.format(mark=str(asked), seconds=1)
            .replace("shorter", "slow")
            .replace('c[-1]["content"]', "c")
        )
        task = {
            "name": "greedy", "kind": "generate", "data": "dev.jsonl",
            "sampling": {"max_tokens": 4},
            "scores": [{"function": "slow", "file": "slow.py"}],
        }  # fmt: skip
        (tmp_path / "dev.jsonl").write_text('{"prompt": "Say 7.", "answer": "7"}\n')
        (tmp_path / "dev.yaml").write_text(yaml.safe_dump({"name": "dev", "tasks": [task]}))
        dev = "dev={suite: dev.yaml, metric: greedy/slow, every: 2}"
        child = Child(["train", recipes["sft"], "--set", dev], tmp_path / "said")
        run = recipes["sft"].parent / "runs/sft"
        log = run / "metrics.jsonl"
        child.until(lambda: log.exists() and log.read_bytes().count(b"\n") == 2)
        asked.unlink()
        child.until(asked.exists)
        child.signal(number)
        assert child.end() == code
        assert step_of(latest_checkpoint(run)) == 2
        assert metrics(run)[-1]["dev/greedy/slow"] < 0

    def test_in_the_last_step(self, recipes: dict[str, Path]) -> None:
        """A pipeline must not go on to its next stage; the run has only to be finished."""

        def stop(record: Any) -> None:
            if record.step == record.total:
                signal.raise_signal(signal.SIGTERM)

        recipe = load_recipe(recipes["sft"])
        with pytest.raises(StoppedBySignal):
            train(recipe, on_step=stop)
        assert step_of(latest_checkpoint(Path(recipe.output))) == 6
        assert train(recipe, resume=True).is_dir()
        assert rows(Path(recipe.output)) == [1, 2, 3, 4, 5, 6]


def test_fault_4_a_second_signal(recipes: dict[str, Path], tmp_path: Path) -> None:
    """It does not wait for the end of the step; the checkpoint before is whole."""
    asked, file = tmp_path / "asked", tmp_path / "rewards.py"
    file.write_text(SLEEPY.format(mark=str(asked), seconds=1).replace("shorter", "slow"))
    held = "eval={data: tasks.jsonl, every: 3, reward: [{function: slow, file: slow.py}]}"
    file.rename(tmp_path / "slow.py")
    file.write_text(QUICK.replace("    \n", ""))
    child = Child(["train", recipes["grpo"], "--set", held], tmp_path / "said")
    run = recipes["grpo"].parent / "runs/grpo"
    child.until(asked.exists)  # step 3 is made and being measured
    for _ in range(2):
        child.signal(signal.SIGTERM)
        time.sleep(0.1)
    assert child.end(30) == 143
    assert rows(run) == [1, 2]
    assert "after step" not in child.said
    kept = latest_checkpoint(run)
    assert kept is not None
    carried = json.loads((kept / "trainer.json").read_text())
    assert carried["step"] == step_of(kept)
