"""`strop` in processes of their own that start in milliseconds: to be killed, signalled, or asked
what a user asks, with exit code and output."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import strop.cli.train
import strop.train.run
from strop import files
from strop.cli import main

BOUND = 120.0
"""Seconds after which a child that should have ended fails the test."""

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["strop.cli.train", "strop.train.run", "transformers.models.qwen3.modeling_qwen3"]
)


class Child:
    """One command: `Child(["train", "sft.yaml"], tmp_path / "said")`.

    What it prints goes to `log`; its errors too, unless `errors` names another file. With `dies_at`
    it is killed by its own hand (`kill -9`) at that flush of a checkpoint's files.
    """

    def __init__(
        self, arguments: Sequence[object], log: Path, *,
        errors: Path | None = None, cwd: Path | None = None, dies_at: int = 0,
    ) -> None:  # fmt: skip
        self.log = log
        given = ([str(a) for a in arguments], str(log), str(errors or log), cwd, dies_at)
        self.process: ForkServerProcess = CONTEXT.Process(target=_command, args=given)
        for file in {log, errors or log}:
            if file.is_file():  # of an earlier child; a pipe stays
                file.unlink()
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    @property
    def over(self) -> bool:
        return self.process.exitcode is not None

    @property
    def said(self) -> str:
        return self.log.read_text()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self, seconds: float = BOUND) -> int:
        """Its exit code; one that does not end in time is killed, and the test fails."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"still there after {seconds:.0f} s; it said: {self.said}")
        return self.process.exitcode

    def until(self, condition: Callable[[], bool], seconds: float = BOUND) -> None:
        """Wait for a condition; ends at once where the child does."""
        last = time.monotonic() + seconds
        while not condition():
            assert not self.over, f"it ended with {self.process.exitcode}: {self.said}"
            assert time.monotonic() < last, f"waited in vain; it said: {self.said}"
            time.sleep(0.002)


def strop(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command to its end; its exit code and what it said."""
    with tempfile.TemporaryDirectory() as folder:
        out, errors = Path(folder) / "out", Path(folder) / "errors"
        code = Child(arguments, out, errors=errors, cwd=cwd).end()
        said = out.read_text(), errors.read_text()
    return subprocess.CompletedProcess(list(map(str, arguments)), code, *said)


def expect_refused(
    result: subprocess.CompletedProcess[str], *words: str, output: Path | None = None
) -> None:
    """Exit 2, one message that names place and fix, no traceback, nothing half-written."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr, result.stderr
    if output is not None:
        assert not output.exists()


def sets(*settings: str) -> list[str]:
    """`--set` before each of them."""
    return [part for setting in settings for part in ("--set", setting)]


def _command(arguments: list[str], log: str, errors: str, cwd: Path | None, dies_at: int) -> None:
    """What a child does."""
    for number, file in ((1, log), (2, errors)):
        # appended to: both may be one file
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    if cwd is not None:
        os.chdir(cwd)
    # a shell that runs the tests in its background has its children ignore Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if dies_at:
        _die_at_flush(dies_at)
    sys.argv = ["strop", *arguments]
    main()


def _die_at_flush(number: int) -> None:
    flush, seen = files.flush, 0

    def counting(path: Path) -> None:
        nonlocal seen
        if "checkpoint-" in str(path):
            seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(path)

    patched: Any = files
    patched.flush = counting
