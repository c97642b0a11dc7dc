"""Two data verbs on one output: the second one is told, and a dead one blocks nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from strop.curate.manifest import sources_of, writing_records
from strop.errors import OutputError
from strop.files import locked_beside
from tests.support.planned import read_jsonl, strop
from tests.support.runs import WriteRows

HOLD = """
import sys, time
from pathlib import Path
from strop.files import locked_beside
with locked_beside(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def source(write_rows: WriteRows) -> Path:
    return write_rows("sft.jsonl", [{"prompt": f"{n} + 1", "completion": f"{n + 1}"}
                                    for n in range(20)])  # fmt: skip


@pytest.mark.parametrize("name", ["out.jsonl", "out"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_second_one_is_refused_and_the_first_one_is_whole(
    source: Path, tmp_path: Path, name: str, overwrite: bool
) -> None:
    out = tmp_path / name
    options = ["--overwrite"] if overwrite else []
    with writing_records(out, "clean", sources_of([source]), {}):
        with pytest.raises(OutputError, match=f"another process writes this: process {os.getpid()} "
                           r"on host .*\n  fix: wait for it or stop it") as told:  # fmt: skip
            strop("data", "clean", source, "--output", out, *options)
        assert str(out) in str(told.value)
        other = tmp_path / "other.jsonl"
        strop("data", "clean", source, "--output", other)
        assert len(read_jsonl(other)) == 20
    assert out.exists()
    assert not list(tmp_path.glob(".*"))


def test_what_was_written_meanwhile_is_not_replaced(source: Path, tmp_path: Path) -> None:
    strop("data", "clean", source, "--output", tmp_path / "out.jsonl")
    with pytest.raises(OutputError, match="something stands there"):
        strop("data", "clean", source, "--output", tmp_path / "out.jsonl")
    strop("data", "clean", source, "--output", tmp_path / "out.jsonl", "--overwrite")
    assert len(read_jsonl(tmp_path / "out.jsonl")) == 20


def test_a_live_process_blocks_and_a_killed_one_does_not(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=f"process {holder.pid} on host"):
            strop("data", "clean", source, "--output", out)
        holder.send_signal(signal.SIGKILL)
    stale = tmp_path / ".out.jsonl.lock"
    assert json.loads(stale.read_text())["pid"] == holder.pid
    strop("data", "clean", source, "--output", out)
    assert len(read_jsonl(out)) == 20
    assert not stale.exists()


def test_a_verb_that_fails_lets_go(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with (
        pytest.raises(RuntimeError, match="a fault"),
        writing_records(out, "clean", sources_of([source]), {}),
    ):
        raise RuntimeError("a fault")
    with locked_beside(out):
        pass
    assert not list(tmp_path.glob(".*"))
