"""Where a step's time goes: clocks by hand, planted sleeps, and a run that notices nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from strop.errors import UsageError
from strop.recipe.loading.load import load_recipe
from strop.tracking.phases import Phase, Spent, Stopwatch, phase
from strop.tracking.runlog import read_rows
from strop.train.monitor import profile as profile_module
from strop.train.monitor.profile import Profile, Trace, covered, table
from strop.train.run import train
from tests.support.processes import expect_refused, strop
from tests.support.runs import Finished, break_off, final_weights, metrics, same

NAP = 0.05


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class TestStopwatch:
    def test_inner_time_is_taken_off_the_outer(self) -> None:
        wall, cpu = Clock(), Clock()
        watch = Stopwatch(wall=wall, cpu=cpu)

        def work(seconds: float, cores: float) -> None:
            wall.now += seconds
            cpu.now += seconds * cores

        work(9, 1)  # before: nobody's
        with watch.running():
            work(1, 1)
            with phase("data"):
                work(2, 1)
                with phase("forward"):
                    work(4, 2)
                work(8, 0)
            with phase("forward"):
                work(16, 2)
            work(32, 1)
        work(9, 1)
        assert watch.spent == {
            "idle": Spent(33, cpu=33), "data": Spent(10, cpu=2), "forward": Spent(20, cpu=40),
        }  # fmt: skip
        assert watch.spent["forward"].cores() == 2

    def test_an_evaluation_swallows_what_it_is_made_of(self) -> None:
        wall = Clock()
        watch = Stopwatch(wall=wall)
        with watch.running(), phase("evaluation"):
            with phase("sampling"):
                wall.now += 3
            with phase("reward"):
                wall.now += 4
        assert watch.spent["evaluation"].seconds == 7
        assert watch.spent.keys() == {"evaluation", "idle"}

    def test_the_device_is_waited_for_before_the_clock_is_read(self) -> None:
        """Work that was only queued in a phase counts there, not where somebody waits for it."""
        wall = Clock()
        queued = [0.0]

        def synchronize() -> None:
            wall.now += queued[0]
            queued[0] = 0

        watch = Stopwatch(wall=wall, synchronize=synchronize)
        with watch.running():
            with phase("forward"):
                queued[0] = 5
            with phase("backward"):
                wall.now += 1
        assert {n: s.seconds for n, s in watch.spent.items()} == {
            "idle": 0, "forward": 5, "backward": 1,
        }  # fmt: skip

    def test_spans_never_overlap(self) -> None:
        events: list[str] = []

        @contextmanager
        def span(name: str) -> Iterator[None]:
            events.append(f"+{name}")
            yield
            events.append(f"-{name}")

        with Stopwatch(span=span).running(), phase("data"), phase("forward"):
            pass
        assert events == [
            "+idle", "-idle", "+data", "-data", "+forward", "-forward", "+data", "-data", "+idle",
            "-idle",
        ]  # fmt: skip

    def test_a_failed_phase_ends(self) -> None:
        wall = Clock()
        watch = Stopwatch(wall=wall)

        def fail() -> None:
            with phase("reward"):
                wall.now += 2
                raise ValueError("planted")

        with pytest.raises(ValueError, match="planted"), watch.running():
            fail()
        assert watch.spent["reward"].seconds == 2
        wall.now += 50
        with phase("reward"):  # nobody watches any more
            wall.now += 1
        assert watch.spent["reward"].seconds == 2

    def test_unwatched_phases_are_one_shared_nothing(self) -> None:
        assert phase("data") is phase("reward")


def test_covered() -> None:
    assert covered([]) == 0
    assert covered([(5, 6), (0, 2), (1, 3), (1.5, 1.7)]) == 4


def slow_rewards(recipe: Path) -> Path:
    """Every judgement takes `NAP` seconds more, which is no work for any core."""
    path = recipe.parent / "rewards.py"
    path.write_text(f"import time\n{path.read_text()}")
    path.write_text(path.read_text().replace("    return", f"    time.sleep({NAP})\n    return"))
    return recipe


def profiled(recipe: Path, steps: int, *overrides: str, **options: Any) -> Profile:
    found: list[Profile] = []
    train(load_recipe(recipe, overrides), profile=steps, on_profile=found.append, **options)
    (profile,) = found
    return profile


class TestRuns:
    def test_a_planted_sleep_is_found_where_it_is(self, recipes: dict[str, Path]) -> None:
        profile = profiled(slow_rewards(recipes["grpo"]), 3)
        reward = profile.phases["reward"]
        assert NAP <= reward.seconds < 1.5 * NAP
        # other work on the machine takes from what computes, not from what sleeps
        assert 4 * reward.cores() < profile.phases["backward"].cores()
        assert list(profile.steps) == [2, 3, 4]

    def test_phases_add_up_to_the_step(self, recipes: dict[str, Path]) -> None:
        """The loop's own clock agrees; it stops a little earlier."""
        profile = profiled(slow_rewards(recipes["ppo"]), 3)
        whole = sum(spent.seconds for spent in profile.phases.values())
        assert profile.whole.seconds == pytest.approx(whole)
        rows = list(read_rows(recipes["ppo"].parent / "runs/ppo/metrics.jsonl"))
        timed = sum(row["step_time"] for row in rows[1:4]) / 3
        assert timed <= whole < timed + 0.01
        assert profile.phases["idle"].seconds < 0.1 * whole

    @pytest.mark.parametrize("method", ["sft", "kto", "reward_model", "ppo", "online_dpo"])
    def test_weights_and_log_are_those_of_an_unprofiled_run(
        self, method: str, recipes: dict[str, Path], finished: Finished
    ) -> None:
        plain = finished(method)
        profile = profiled(recipes[method], 2)
        watched = recipes[method].parent / "runs" / method
        assert same(final_weights(plain), final_weights(watched))
        assert metrics(plain) == metrics(watched)
        worked = {name for name, spent in profile.phases.items() if spent.seconds}
        online = {"sampling", "reward"} if method in ("ppo", "online_dpo") else set()
        evaluated = set() if online else {"evaluation"}  # at step 3
        assert worked == {"data", "forward", "backward", "optimizer", "idle"} | online | evaluated

    def test_a_reference_is_read_forward(self, recipes: dict[str, Path]) -> None:
        """KL's second forward belongs to the forwards, not to the data it is laid out with."""
        profile = profiled(recipes["grpo"], 2, "run.micro_batch_tokens=8192")
        assert profile.phases["data"].seconds < 0.3 * profile.phases["forward"].seconds

    def test_a_resumed_run_profiles_the_steps_it_makes(self, recipes: dict[str, Path]) -> None:
        break_off(load_recipe(recipes["dpo"]), 3)  # the checkpoint of step 2 is there
        profile = profiled(recipes["dpo"], 5, resume=True)
        assert list(profile.steps) == [4, 5]

    def test_fewer_steps_than_asked_for_are_named(self, recipes: dict[str, Path]) -> None:
        profile = profiled(recipes["sft"], 50)
        assert list(profile.steps) == [2, 3, 4, 5]
        said = (recipes["sft"].parent / "runs/sft/profile/profile.md").read_text()
        assert said == table(profile)
        assert "mean of 4 steps from step 2 on (50 were asked for)" in said


class TestTrace:
    def spans(self, folder: Path) -> list[dict[str, Any]]:
        events = json.loads((folder / "trace.json").read_text())["traceEvents"]
        names = get_args(Phase)
        found = [e for e in events if e.get("cat") == "user_annotation" and e["name"] in names]
        return sorted(found, key=lambda e: float(e["ts"]))

    def test_phases_lie_end_to_end(self, recipes: dict[str, Path]) -> None:
        profile = profiled(recipes["grpo"], 1)
        spans = self.spans(recipes["grpo"].parent / "runs/grpo/profile")
        assert {e["name"] for e in spans} == set(get_args(Phase)) - {"evaluation"}
        ends = [e["ts"] + e["dur"] for e in spans]
        assert all(end <= e["ts"] for end, e in zip(ends, spans[1:], strict=False))
        assert sum(e["dur"] for e in spans) / 1e6 == pytest.approx(profile.trace.seconds, rel=0.05)

    def test_a_long_trace_keeps_phases_and_the_longest(
        self, recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(profile_module, "LONGEST", 20)
        profile = profiled(recipes["sft"], 1)
        folder = recipes["sft"].parent / "runs/sft/profile"
        assert {"forward", "backward", "optimizer"} <= {e["name"] for e in self.spans(folder)}
        events = json.loads((folder / "trace.json").read_text())["traceEvents"]
        kept = [e for e in events if e["ph"] == "X" and e["cat"] != "user_annotation"]
        assert len(kept) == 20 < profile.trace.operations
        assert "20 longest of" in table(profile)

    def test_the_device_idles_where_no_kernel_runs(self, tmp_path: Path) -> None:
        def event(category: str, start: float, length: float) -> dict[str, Any]:
            return {"ph": "X", "cat": category, "name": category, "ts": start, "dur": length}

        path = tmp_path / "trace.json"
        events = [
            event("cpu_op", 0, 1e6),
            event("kernel", 1e5, 2e5),
            event("kernel", 2e5, 2e5),  # another stream, half of it at the same time
            event("gpu_memcpy", 9e5, 1e5),
        ]
        path.write_text(json.dumps({"traceEvents": events}))
        trace = profile_module.slimmed(path, 1.0, on_device=True)
        assert trace.device_idle == pytest.approx(0.6)
        assert profile_module.slimmed(path, 1.0, on_device=False).device_idle is None


def test_the_table_by_hand() -> None:
    spent: dict[Phase, Spent] = {"forward": Spent(3.0, cpu=6.0), "idle": Spent(1.0, cpu=0.5)}
    profile = Profile.of(spent, 2, range(2, 4), Trace(2.5, 0.25, 10, 10))
    lines = table(profile).splitlines()
    assert "| forward    |         1.5000 |   75.0% |       2.00 |" in lines
    assert "| sampling   |         0.0000 |    0.0% |          - |" in lines
    assert "| idle       |         0.5000 |   25.0% |       0.50 |" in lines
    assert "| a step     |         2.0000 |  100.0% |       1.62 |" in lines
    assert "asked for" not in table(profile)
    assert "device idle in the traced step: 25.0%" in table(profile)
    assert max(map(len, lines)) <= 100


class TestCommandLine:
    def test_prints_the_table(self, recipes: dict[str, Path]) -> None:
        result = strop("train", recipes["sft"], "--profile", 2)
        assert result.returncode == 0, result.stderr
        folder = recipes["sft"].parent / "runs/sft/profile"
        assert (folder / "profile.md").read_text() in result.stdout
        assert {p.name for p in folder.iterdir()} == {"profile.md", "trace.json"}

    def test_json(self, recipes: dict[str, Path]) -> None:
        result = strop("train", recipes["sft"], "--profile", 2, "--json")
        (profile,) = [
            row["profile"]
            for row in map(json.loads, result.stdout.splitlines())
            if "profile" in row
        ]
        assert profile["steps"] == 2
        assert profile["step_seconds"] == pytest.approx(sum(profile["seconds"].values()))

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--profile", "0"], ("--profile 0 times no step", "fix:")),
            (["--profile", "2", "--dry-run"], ("runs no step to profile", "fix:")),
            (["--profile", "2", "--set", "run.steps=2"], ("needs 3 steps", "2 are left", "fix:")),
        ],
        ids=lambda value: " ".join(value)[:24],
    )
    def test_refused(
        self, options: list[str], words: tuple[str, ...], recipes: dict[str, Path]
    ) -> None:
        result = strop("train", recipes["sft"], *options)
        expect_refused(result, *words, output=recipes["sft"].parent / "runs")

    def test_a_finished_run_has_nothing_to_profile(self, recipes: dict[str, Path]) -> None:
        recipe = load_recipe(recipes["sft"])
        train(recipe)
        with pytest.raises(UsageError, match="0 are left"):
            train(recipe, resume=True, profile=1)

    def test_overwrite_deletes_an_old_profile(self, recipes: dict[str, Path]) -> None:
        profiled(recipes["sft"], 1)
        folder = recipes["sft"].parent / "runs/sft/profile"
        assert folder.exists()
        train(load_recipe(recipes["sft"]), overwrite=True)
        assert not folder.exists()


def test_the_recipe_stays_as_it_was(recipes: dict[str, Path]) -> None:
    """A profile is no part of what a run is: the same recipe resumes it."""
    profiled(recipes["sft"], 1)
    written = recipes["sft"].parent / "runs/sft/recipe.resolved.yaml"
    assert "profile" not in yaml.safe_load(written.read_text())
