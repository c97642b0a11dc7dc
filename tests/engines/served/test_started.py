"""A vLLM that strop starts: it answers, is told apart from one that does not, and never stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import strop
from strop.engines.served import process
from strop.engines.served.command import Command
from strop.engines.served.process import started
from strop.errors import HttpError, TrainingError, UsageError
from tests.support import ROOT
from tests.support.fake_vllm import DEAF, DIES, SERVES, SLEEPS, program
from tests.support.runs import WriteRows

WITHIN = 30.0


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody waited for yet counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def pids(folder: Path) -> list[int]:
    until = time.monotonic() + WITHIN
    while not (folder / "pids.txt").exists() or not (folder / "pids.txt").read_text().strip():
        assert time.monotonic() < until, "the program has begun"
        time.sleep(0.05)
    return [int(one) for one in (folder / "pids.txt").read_text().split()]


def expect_gone(found: list[int]) -> None:
    until = time.monotonic() + WITHIN
    while not all(gone(pid) for pid in found):
        assert time.monotonic() < until, f"{[pid for pid in found if not gone(pid)]} stayed"
        time.sleep(0.05)


def never() -> None:
    raise HttpError("nobody is there", where="http://127.0.0.1:9")


@pytest.fixture
def recipe(model_folder: Path, write_rows: WriteRows, tmp_path: Path) -> dict[str, Any]:
    tasks = [{"prompt": f"Solve {n}x = {2 * n}", "answer": "2"} for n in range(1, 5)]
    return {
        "method": "grpo", "output": str(tmp_path / "run"), "model": {"path": str(model_folder)},
        "data": str(write_rows("tasks.jsonl", tasks)), "text": {"max_length": 96},
        "rollout": {"group_size": 4, "max_tokens": 12},
        "optim": {"learning_rate": 1e-3}, "run": {"steps": 2, "batch_size": 2},
    }  # fmt: skip


def short(prompts: Any, completions: Any, **_: Any) -> list[float]:
    return [-float(len(c if isinstance(c, str) else c[-1]["content"])) for c in completions]


def test_a_run_starts_its_server_samples_from_it_and_ends_it(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    python = program(tmp_path, SERVES)
    more = {"arguments": ["--gpu-memory-utilization", "0.4"], "start_seconds": 120}
    recipe["rollout"]["engine"] = {"kind": "vllm", "python": str(python), **more}
    recipe["model"]["lora"] = {"rank": 4}
    run = strop.train(recipe, rewards=[short])
    assert run.metrics["reward_std"].values[0] > 0
    asked = (tmp_path / "asked.txt").read_text()
    assert "--enable-lora --max-lora-rank 8" in asked
    assert asked.strip().endswith("--gpu-memory-utilization 0.4")
    checks = json.loads((tmp_path / "run/lineage.json").read_text())["self_check"]
    assert checks["sampler_mismatch"] < 1e-5
    assert checks["engine"]["sync"] == "AdapterSync"
    assert "http://127.0.0.1:" in (tmp_path / "run/vllm.log").read_text()
    assert all(gone(pid) for pid in pids(tmp_path)), "when the run is over, so is its server"


def test_a_reward_that_fails_leaves_no_server(recipe: dict[str, Any], tmp_path: Path) -> None:
    def broken(prompts: Any, completions: Any, **_: Any) -> list[float]:
        raise KeyboardInterrupt

    recipe["rollout"]["engine"] = {"kind": "vllm", "python": str(program(tmp_path, SERVES))}
    with pytest.raises(KeyboardInterrupt):
        strop.train(recipe, rewards=[broken])
    assert all(gone(pid) for pid in pids(tmp_path))


def test_one_that_dies_is_shown_with_its_last_lines(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["rollout"]["engine"] = {"kind": "vllm", "python": str(program(tmp_path, DIES))}
    with pytest.raises(TrainingError, match="ended with status 3 before it answered") as caught:
        strop.train(recipe, rewards=[short])
    said = str(caught.value)
    assert "loading the model" in said
    assert "no kernel image is available" in said
    assert str(tmp_path / "run/vllm.log") in said


def test_only_what_this_start_said_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("from an earlier start\n")
    command = Command((str(program(tmp_path, DIES)),), {})
    with (
        pytest.raises(TrainingError, match="no kernel image") as caught,
        started(command, never, log, seconds=60),
    ):
        pass
    assert "earlier start" not in str(caught.value)
    assert "earlier start" in log.read_text()


def test_one_that_never_answers_is_ended_in_time(tmp_path: Path) -> None:
    command = Command((str(program(tmp_path, SLEEPS)),), {})
    with (
        pytest.raises(TrainingError, match="did not answer within 2 s") as caught,
        started(command, never, tmp_path / "log", seconds=2),
    ):
        pass
    assert "start_seconds" in str(caught.value)
    assert all(gone(pid) for pid in pids(tmp_path))


def test_one_that_hears_no_signal_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "ENDED_WITHIN", 0.5)
    command = Command((str(program(tmp_path, DEAF)),), {})
    with started(command, lambda: pids(tmp_path), tmp_path / "log", seconds=60):
        (pid,) = pids(tmp_path)
        assert not gone(pid)
    expect_gone([pid])


HOLDER = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a job in the background ignores
from strop.engines.served.command import Command
from strop.engines.served.process import started
here = Path(sys.argv[1])
with started(Command((str(here / "python"),), {}), lambda: None, here / "log", seconds=60):
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of strop's that holds a server."""
    program(tmp_path, SLEEPS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    running = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], env=environment)
    yield running
    running.kill()
    running.wait()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_server_does_not_outlive_who_started_it(
    holder: subprocess.Popen[bytes], tmp_path: Path, number: signal.Signals
) -> None:
    found = pids(tmp_path)
    assert not any(gone(pid) for pid in found)
    holder.send_signal(number)
    expect_gone(found)


def test_a_run_that_is_told_to_end_ends_its_server(recipe: dict[str, Any], tmp_path: Path) -> None:
    """SIGTERM while it waits for the server."""
    recipe["rollout"]["engine"] = {"kind": "vllm", "python": str(program(tmp_path, SLEEPS))}
    recipe["reward"] = [{"function": "exact_answer"}]
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-P", "-m", "strop", "train", str(path)]
    running = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    try:
        found = pids(tmp_path)
        running.send_signal(signal.SIGTERM)
        assert running.wait(WITHIN) == 143
        expect_gone(found)
    finally:
        running.kill()
        running.wait()


class TestRefusals:
    @pytest.mark.parametrize(
        ("engine", "said"),
        [
            ({"url": "http://a:1", "python": "p"}, "either url, of servers that run, or python"),
            ({}, "either url, of servers that run, or python"),
            ({"url": "http://a:1", "start_seconds": 5}, "start_seconds is for a server that strop"),
            ({"url": "http://a:1", "arguments": ["-x"]}, "arguments is for a server that strop"),
            ({"kind": "sglang", "url": "http://a:1", "python": "p"}, "python"),
            ({"python": "/nowhere/python"}, "is no program"),
            ({"python": sys.executable, "sync": "adapter"}, "sync is adapter, and the model has"),
        ],
    )
    def test_before_anything_is_started(
        self, recipe: dict[str, Any], engine: dict[str, Any], said: str
    ) -> None:
        recipe["rollout"]["engine"] = {"kind": "vllm", **engine}
        with pytest.raises(UsageError, match=said):
            strop.train(recipe, rewards=[short])
