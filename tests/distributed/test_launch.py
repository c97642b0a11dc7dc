"""`strop train --nproc N` and torchrun as a user starts them: real processes, ended and resumed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from strop.distributed import launch
from strop.distributed.launch import expect_place
from strop.errors import UsageError
from tests.support.runs import final_weights, metrics

STEPS = 120
BOUND = 120.0


def command(recipe: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "strop", "train", str(recipe), *options]


def finished(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=BOUND * 2, check=False)


def children_of(parent: int) -> dict[int, int]:
    """The processes of a run by rank."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if int(entry.joinpath("stat").read_text().rsplit(")", 1)[1].split()[1]) != parent:
                continue
            told = entry.joinpath("environ").read_text().split("\0")
        except OSError:
            continue
        rank = next(one.removeprefix("RANK=") for one in told if one.startswith("RANK="))
        found[int(rank)] = int(entry.name)
    return found


def under_way(recipe: Path, output: Path, *options: str) -> subprocess.Popen[str]:
    """A run that has made some steps since it was started and has more to make."""
    log, until = output / "metrics.jsonl", time.monotonic() + BOUND
    before = log.read_text().count("\n") if log.exists() else 0
    running = subprocess.Popen(
        command(recipe, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (log.exists() and log.read_text().count("\n") >= before + 3):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    return running


@pytest.fixture
def sft(recipes: dict[str, Path], tmp_path: Path) -> tuple[Path, list[str]]:
    return recipes["sft"], [f"--set=run.steps={STEPS}", "--set=run.batch_size=32"]


def expect_equal(one: Path, other: Path) -> None:
    """The same weights and the same log, up to rounding."""
    right = final_weights(other)
    for name, weight in final_weights(one).items():
        assert torch.allclose(weight, right[name], atol=1e-5), name
    for row, also in zip(metrics(one), metrics(other), strict=True):
        assert row["loss"] == pytest.approx(also["loss"], rel=1e-4)


def test_a_process_that_is_killed_ends_the_run_within_a_minute(
    sft: tuple[Path, list[str]], tmp_path: Path
) -> None:
    recipe, options = sft
    options = [*options, f"--set=output={tmp_path / 'run'}", "--set=run.save_every=2"]
    options += ["--set=run.steps=4000"]
    running = under_way(recipe, tmp_path / "run", *options, "--nproc", "2")
    ranks = children_of(running.pid)
    assert sorted(ranks) == [0, 1]
    started = time.monotonic()
    os.kill(ranks[1], signal.SIGKILL)
    _, said = running.communicate(timeout=60)
    assert time.monotonic() - started < 60
    assert running.returncode == 1
    assert "process 1 of 2 was ended by SIGKILL" in said
    assert "Traceback" not in said
    assert children_of(running.pid) == {}
    reached = metrics(tmp_path / "run")[-1]["step"]
    kept = max(int(c.name.split("-")[1]) for c in (tmp_path / "run").glob("checkpoint-*"))
    assert kept >= reached - 4


def test_who_starts_it_takes_its_processes_along(
    sft: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """Even a killed launcher leaves none behind."""
    recipe, options = sft
    options = [*options, f"--set=output={tmp_path / 'run'}", "--set=run.steps=4000"]
    running = under_way(recipe, tmp_path / "run", *options, "--nproc", "2")
    ranks = children_of(running.pid)
    running.kill()
    running.communicate()
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in ranks.values()):
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.slow
def test_torchrun_gives_the_run_of_one_process(sft: tuple[Path, list[str]], tmp_path: Path) -> None:
    recipe, options = sft
    whole, several = tmp_path / "whole", tmp_path / "several"
    assert finished(command(recipe, *options, f"--set=output={whole}")).returncode == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "3", "-m"]
    ran = finished([*torchrun, *command(recipe, *options, f"--set=output={several}")[2:]])
    assert ran.returncode == 0, ran.stderr
    expect_equal(whole, several)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set=data=nowhere.jsonl"], "no such file"),
        (["--set=run.distributed.timeout=-5"], "should be greater than 0"),
        pytest.param(
            ["--set=run.distributed.shard=hybrid", "--set=run.distributed.replicas=3"],
            "2 processes are not 3 equal groups",
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_said_once(
    options: list[str], said: str, sft: tuple[Path, list[str]], tmp_path: Path
) -> None:
    ran = finished(command(sft[0], f"--set=output={tmp_path / 'run'}", *options, "--nproc", "2"))
    assert ran.returncode == 2
    assert ran.stderr.count("strop: ") == 1
    assert said in ran.stderr
    assert not (tmp_path / "run").exists()


def test_nproc_within_torchrun_is_refused(sft: tuple[Path, list[str]]) -> None:
    ran = subprocess.run(
        command(sft[0], "--nproc", "2"), capture_output=True, text=True, check=False,
        env={**os.environ, "WORLD_SIZE": "2", "RANK": "0"},
    )  # fmt: skip
    assert ran.returncode == 2
    assert "leave --nproc out" in ran.stderr


PLACE = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "h", "MASTER_PORT": "9"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"RANK": None}, "WORLD_SIZE is set and RANK is not"),
        ({"RANK": "zwei"}, "RANK is 'zwei', which is no number"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK is '-1', which is no number"),
        ({"RANK": "2"}, "RANK 2 is none of WORLD_SIZE 2 processes, 0 to 1"),
        ({"WORLD_SIZE": "0", "RANK": "0"}, "no process takes part"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT 70000 is no port"),
    ],
)
def test_an_environment_that_names_no_place_is_refused(
    changed: dict[str, str | None], said: str
) -> None:
    """Torch would wait for processes that never come, or leave a traceback."""
    expect_place(PLACE)
    told = {name: value for name, value in {**PLACE, **changed}.items() if value is not None}
    with pytest.raises(UsageError, match=said):
        expect_place(told)


def test_a_process_whose_others_never_come_can_be_ended(sft: tuple[Path, list[str]]) -> None:
    """Torch waits for them without a look at signals."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = PLACE | {"RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
                     "MASTER_PORT": str(port)}  # fmt: skip
    waiting = subprocess.Popen(command(sft[0]), env={**os.environ, **place})
    until = time.monotonic() + BOUND
    while True:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            break
        assert waiting.poll() is None
        assert time.monotonic() < until
        time.sleep(0.2)
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait(BOUND) == 143


def test_processes_that_heed_no_signal_are_killed_after_the_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch, "HURRY", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(100)"
    running = [subprocess.Popen([sys.executable, "-c", deaf]) for _ in range(2)]
    assert launch._wait(running, [signal.SIGINT, signal.SIGINT]) == 130
    assert [process.returncode for process in running] == [-signal.SIGKILL] * 2
