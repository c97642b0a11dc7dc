"""Sandboxes, what is asked of them, and what must not stay behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from strop.sandbox import referee
from strop.sandbox.client import Sandbox
from strop.sandbox.confine import landlock
from strop.sandbox.confine.jail import Limits

SHORT = Limits(seconds=2.0, wall=4.0, memory=256 * 2**20, folder=2**20, output=2**16)


def refusal(tier: str) -> str | None:
    """Why a tier cannot be tested here."""
    if "landlock" in tier and landlock.version() == 0:
        return "this kernel has no Landlock"
    if "bubblewrap" in tier and shutil.which("bwrap") is None:
        return "bubblewrap (bwrap) is not installed"
    if "bubblewrap" in tier and os.system("bwrap --unshare-all --ro-bind / / true 2>/dev/null"):
        return "bubblewrap may make no namespaces here"
    return None


def request(code: str, tests: Any, **more: Any) -> dict[str, Any]:
    plain = {"entry_point": None, "prompt": "", "partial": False, "limits": asdict(SHORT)}
    return {"code": code, "tests": tests} | plain | more


def judge(sandbox: Sandbox, code: str, tests: Any, **more: Any) -> referee.TestFinding:
    return referee.judge(request(code, tests, **more), sandbox)


def score(finding: referee.TestFinding) -> tuple[int, int]:
    assert finding.unjudged is None, finding.unjudged
    return finding.passed, finding.total


def still_judges(sandbox: Sandbox) -> None:
    assert score(judge(sandbox, "def add(a, b): return a + b", "assert add(2, 3) == 5")) == (1, 1)
    assert score(judge(sandbox, "def add(a, b): return a - b", "assert add(2, 3) == 5")) == (0, 1)


def children(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def handles(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def folder_of(sandbox: Sandbox) -> Path:
    """The one candidate folder that belongs to this fork server, as a candidate sees it."""
    with sandbox.execute("import os\ndef where(): return os.getcwd()", SHORT) as candidate:
        return Path(candidate.call("where", [], {}))


@contextlib.contextmanager
def nothing_stays(sandbox: Sandbox) -> Iterator[None]:
    """No process, open file or file is left, and the sandbox judges as before."""
    server, folder = sandbox.pid, folder_of(sandbox)
    before = handles(server), handles(os.getpid())
    yield
    assert not has_ended(server), "the fork server has ended"
    assert os.listdir(folder) == []
    assert children(server) == []
    assert (handles(server), handles(os.getpid())) == before
    still_judges(sandbox)


SECRET = "the-expected-value-4711"


QUICK = Limits(seconds=0.8, wall=2.0, memory=256 * 2**20, folder=2**20, output=2**16)


def wait_for(fine: Any, seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while not fine() and time.monotonic() < until:
        time.sleep(0.02)
    return bool(fine())


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or dead and waited for by nobody."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def is_gone(pid: int) -> bool:
    """Whether a process ends within the time that `wait_for` waits."""
    return wait_for(lambda: has_ended(pid))
