"""Faults 10 and 11: rewards that raise, hang, lie about numbers, or take their process down."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from strop.errors import RecipeError, RewardError, UnscoredError
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.reward import RewardComponent
from strop.rewards.compose import Reward
from strop.rewards.own import worker
from strop.train.run import train
from strop.types import Judged
from tests.support.processes import Child
from tests.support.runs import metrics
from tests.support.sandboxes import is_gone

HEAD = """
import os, time
from pathlib import Path

CALLS = Path(__file__).with_suffix(".calls")

def noted(completions):
    with CALLS.open("a") as stream:
        stream.write("|".join(completions) + "\\n")

def f(prompts, completions, **columns):
    noted(completions)
    return [one(c) for c in completions]

def one(completion):
"""
"""A reward of the length of a text, but for one text that `body` treats."""


def reward(folder: Path, body: str, **given: Any) -> Reward:
    path = folder / "mine.py"
    path.write_text(HEAD + "".join(f"    {line}\n" for line in body.split("\n")))
    return Reward([RewardComponent(function="f", file=str(path), **given)])


def judged(reward: Reward, *completions: str) -> Judged:
    return reward.judge(["p"] * len(completions), list(completions), {})


def totals(found: Judged) -> list[float | None]:
    return [score.total for score in found.scores]


def calls(folder: Path) -> list[str]:
    return (folder / "mine.calls").read_text().splitlines()


def workers_of(pid: int) -> list[int]:
    """Processes of reward workers whose parent is `pid`, zombies included."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,stat,args"], capture_output=True, text=True,
                            check=True).stdout.splitlines()[1:]  # fmt: skip
    found = []
    for line in listed:
        own, parent, state, args = line.split(None, 3)
        if int(parent) == pid and (worker.__name__ in args or state.startswith("Z")):
            found.append(int(own))
    return found


LENGTH = "return len(completion)"


class TestOneBadCompletion:
    """It is left unscored; the others get what they get without it."""

    @pytest.mark.parametrize(
        ("line", "kind", "error"),
        [
            ("raise KeyError('answer')", "raised", "KeyError: 'answer'"),
            ("time.sleep(60)", "hung", "no answer within 1 s"),
            ("os._exit(7)", "ended", "a worker ended while it judged"),
            ("os.kill(os.getpid(), 9)", "ended", "a worker ended while it judged"),
            ("return float('nan')", "not_finite", "returned nan"),
            ("return float('-inf')", "not_finite", "returned -inf"),
            ("return 'good'", "returned", "'good' is text, no number"),
            ("return '1'", "returned", "'1' is text, no number"),
            ("return [1.0]", "returned", "TypeError"),
        ],
    )
    def test_takes_nobody_with_it(self, line: str, kind: str, error: str, tmp_path: Path) -> None:
        body = f"if completion == 'bad':\n    {line}\n{LENGTH}"
        found = judged(reward(tmp_path, body, seconds=1.0), "a", "bb", "bad", "dddd")
        assert totals(found) == [1.0, 2.0, None, 4.0]
        (failure,) = found.failures
        assert (failure.component, failure.kind, failure.count) == ("f", kind, 1)
        assert error in failure.error

    def test_a_wrong_length_says_nothing_of_anybody(self, tmp_path: Path) -> None:
        """One value for each call would fit each completion alone: it must not be asked so."""
        path = tmp_path / "mine.py"
        path.write_text("def f(prompts, completions, **c):\n    return [1.0]\n")
        found = judged(Reward([RewardComponent(function="f", file=str(path))]), "a", "b")
        assert totals(found) == [None, None]
        assert found.failures[0].kind == "returned"
        assert found.failures[0].error == "returned 1 values for 2 completions"

    def test_when_all_hang_the_run_does_not(self, tmp_path: Path) -> None:
        began = time.monotonic()
        found = judged(reward(tmp_path, "time.sleep(60)", seconds=0.2), *"abcdefgh")
        assert time.monotonic() - began < 10
        assert totals(found) == [None] * 8
        assert [(f.kind, f.count) for f in found.failures] == [("hung", 8)]
        assert calls(tmp_path) == ["a|b|c|d|e|f|g|h", "a", "b", "c"]


class TestWorkers:
    """Fault 11."""

    def test_a_worker_that_was_killed_is_replaced_and_its_samples_asked_again(
        self, tmp_path: Path
    ) -> None:
        body = f"""if not CALLS.with_suffix('.died').exists():
    CALLS.with_suffix('.died').touch()
    os.kill(os.getpid(), 9)
{LENGTH}"""
        found = judged(reward(tmp_path, body), "a", "bb")
        assert totals(found) == [1.0, 2.0]
        assert not found.failures
        assert calls(tmp_path) == ["a|bb", "a|bb"], "the same call, once more"

    def test_one_that_dies_every_time_is_retried_once(self, tmp_path: Path) -> None:
        found = judged(reward(tmp_path, "os._exit(1)"), "a")
        assert totals(found) == [None]
        assert calls(tmp_path) == ["a", "a"]

    def test_killed_while_idle(self, tmp_path: Path) -> None:
        before = set(workers_of(os.getpid()))  # rewards of other tests that live as long as they do
        mine = reward(tmp_path, LENGTH)
        (worker,) = set(workers_of(os.getpid())) - before
        os.kill(worker, signal.SIGKILL)
        assert totals(judged(mine, "abc")) == [3.0]

    def test_the_file_is_imported_once_and_keeps_its_state(self, tmp_path: Path) -> None:
        mine = reward(tmp_path, "SEEN.append(completion)\nreturn len(SEEN)\n\nSEEN = []")
        path = tmp_path / "mine.py"
        path.write_text(path.read_text().replace("    SEEN = []", "SEEN = []"))
        mine = Reward(mine.recipe)
        assert [totals(judged(mine, *"ab")), totals(judged(mine, "c"))] == [[1.0, 2.0], [3.0]]

    def test_none_is_left(self, tmp_path: Path) -> None:
        before = set(workers_of(os.getpid()))
        mine = reward(tmp_path, "time.sleep(60)", seconds=0.2)
        judged(mine, "a")
        judged(mine, "b")
        assert len(set(workers_of(os.getpid())) - before) <= 1
        del mine
        gc.collect()
        assert not set(workers_of(os.getpid())) - before

    def test_a_worker_ends_with_the_run_that_was_killed(self, tmp_path: Path) -> None:
        """Also one that hangs just then."""
        reward(tmp_path, "time.sleep(60)")
        code = (
            "from pathlib import Path\n"
            "from strop.rewards.own.guard import GuardedFunction\n"
            f"mine = GuardedFunction(Path({str(tmp_path / 'mine.py')!r}), 'f', 60.0)\n"
            "mine(prompts=['p'], completions=['a'])"
        )
        run = subprocess.Popen([sys.executable, "-c", code])
        end = time.monotonic() + 60
        while not (tmp_path / "mine.calls").exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        (worker,) = workers_of(run.pid)
        run.kill()
        run.wait()
        while Path(f"/proc/{worker}").exists():
            assert time.monotonic() < end, "the worker outlived its run"
            time.sleep(0.02)

    def test_what_it_prints_is_no_answer(self, tmp_path: Path) -> None:
        mine = reward(tmp_path, f"print('{{}}', flush=True); input_ = os.read(0, 9)\n{LENGTH}")
        assert totals(judged(mine, "abc")) == [3.0]

    def test_columns_and_options_arrive_as_they_are(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.py"
        path.write_text(
            "def f(prompts, completions, *, when, ids, scale=1, **c):\n"
            "    return [scale * (w.year + len(i)) for w, i in zip(when, ids)]\n"
        )
        mine = Reward([RewardComponent(function="f", file=str(path), options={"scale": 2})])
        columns = {"when": [date(2020, 1, 1), date(2021, 1, 1)], "ids": [(1, 2), ()]}
        assert totals(mine.judge(["p"] * 2, ["a", "b"], columns)) == [4044.0, 4042.0]

    def test_a_file_that_ends_its_process_on_import(self, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_text("import os\nos._exit(3)\n")
        with pytest.raises(RewardError, match="ended while it was imported"):
            Reward([RewardComponent(function="f", file=str(tmp_path / "mine.py"))])


class TestInProcess:
    def test_it_is_the_same_process_and_the_same_values(self, tmp_path: Path) -> None:
        for here in (True, False):
            mine = reward(tmp_path, "return os.getpid()", in_process=here)
            assert (totals(judged(mine, "a")) == [os.getpid()]) == here

    @pytest.mark.parametrize(
        ("given", "problem"),
        [
            ({"function": "exact_answer", "seconds": 5}, "for a Python function in a `file`"),
            ({"function": "f", "url": "http://localhost:1", "in_process": True}, "for a Python"),
            ({"function": "f", "file": "a.py", "in_process": True, "seconds": 5}, "drop `seconds`"),
        ],
    )
    def test_options_that_would_not_be_read_are_refused(
        self, given: dict[str, Any], problem: str
    ) -> None:
        with pytest.raises(ValueError, match=re.escape(problem)):
            RewardComponent(**given)


class TestRuns:
    """A whole run with a reward that fails for a part of the completions."""

    def recipe(self, recipes: dict[str, Path], body: str, *options: str) -> Any:
        (recipes["grpo"].parent / "rewards.py").write_text(
            "import os, time\n"
            "def shorter(prompts, completions, **columns):\n"
            "    return [one(c[0]['content'], i) for i, c in enumerate(completions)]\n"
            "def one(text, i):\n" + "".join(f"    {line}\n" for line in body.split("\n"))
        )
        return load_recipe(recipes["grpo"], options)

    def test_goes_on_and_counts(self, recipes: dict[str, Path]) -> None:
        recipe = self.recipe(recipes, "return None if i == 3 else -len(text)")
        rows = metrics(train(recipe).parent)
        assert [row["rewards/shorter/unscored"] for row in rows] == [1] * 6
        assert [row["skipped/unscored"] for row in rows] == [1] * 6

    def test_counts_by_reason(self, recipes: dict[str, Path]) -> None:
        body = "return 'x' if i < 2 else float('nan') if i == 3 else -len(text)"
        with pytest.warns(UserWarning, match=r"left 2 completions unscored \(returned: ValueError"):
            rows = metrics(train(self.recipe(recipes, body)).parent)
        for row in rows:
            assert row["rewards/shorter/unscored"] == 3
            assert row["rewards/shorter/returned"] == 2
            assert row["rewards/shorter/not_finite"] == 1

    @pytest.mark.parametrize("share", [None, 0.7])
    def test_stops_above_a_share(self, share: float | None, recipes: dict[str, Path]) -> None:
        """10 of 16 are more than a half: the third step in a row is the last."""
        recipe = self.recipe(recipes, "return 'x' if i < 10 else -len(text)")
        if share is None:
            said = (r"step 3: reward shorter left 62% of the completions unscored, more than 50% "
                    r"for 3 steps in a row; the last error: ValueError: 'x' is text")  # fmt: skip
            with pytest.raises(UnscoredError, match=said):
                train(recipe)
            assert [row["step"] for row in metrics(Path(recipe.output))] == [1, 2]
        else:
            component = recipe.reward[0].model_copy(update={"max_unscored": share})
            recipe = recipe.model_copy(update={"reward": [component]})
            assert len(metrics(train(recipe).parent)) == 6

    def test_no_process_is_left(self, recipes: dict[str, Path], tmp_path: Path) -> None:
        """In a run of its own: a worker is killed in the middle, and none is there at the end."""
        recipe = self.recipe(recipes, "return -len(text)")
        run = Child(["train", recipes["grpo"]], tmp_path / "said")
        log, end, seen = Path(recipe.output) / "metrics.jsonl", time.monotonic() + 100, set()
        killed = False
        while not run.over:
            assert time.monotonic() < end
            now = workers_of(run.pid)
            seen |= set(now)
            if not killed and log.exists() and now:
                os.kill(now[0], signal.SIGKILL)
                killed = True
            time.sleep(0.02)
        assert run.end() == 0, run.said
        assert killed, "no step was made before the end"
        assert all(map(is_gone, seen)), "a worker outlives its run"
        assert len(metrics(log.parent)) == 6

    def test_a_misspelt_file_is_refused_before_the_run(self, recipes: dict[str, Path]) -> None:
        with pytest.raises((RewardError, RecipeError), match=r"gone\.py"):
            train(load_recipe(recipes["grpo"], ["reward=[{function: f, file: gone.py}]"]))
