"""A tier that starts holds; what cannot be shut in does not run."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import pytest

from strop.errors import SandboxError
from strop.sandbox import tiers
from strop.sandbox.client import Sandbox
from strop.sandbox.confine import landlock
from strop.sandbox.confine.jail import Limits
from tests.support.sandboxes import SHORT, handles, is_gone, refusal, still_judges


def test_a_tier_that_starts_here_holds(any_tier: str) -> None:
    tiers.holds(any_tier)  # type: ignore[arg-type]
    with tiers.start(any_tier) as sandbox:  # type: ignore[arg-type]
        still_judges(sandbox)
        assert sandbox.run_program("print(input())", "hello", SHORT).output == "hello\n"
        with sandbox.execute("import numpy\ndef f(): return float(numpy.ones(3).sum())",
                             Limits()) as candidate:  # fmt: skip
            assert candidate.call("f", [], {}) == 3.0


def test_without_a_wall_nothing_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "CLIMB", "def climb(outside): return ['fly']")
    with pytest.raises(SandboxError, match="fly" if landlock.version() else ""):
        tiers.holds("landlock")


@pytest.fixture
def nothing_known() -> Iterator[None]:
    tiers.strongest.cache_clear()
    yield
    tiers.strongest.cache_clear()


@pytest.mark.usefixtures("nothing_known")
def test_it_fails_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_wall(tier: str, handle: int) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('no wall here')"]

    monkeypatch.setattr(tiers, "command", no_wall)
    with pytest.raises(SandboxError, match="so no code is run") as caught:
        tiers.strongest()
    assert caught.value.problem.count("no wall here") == len(get_args(tiers.Tier))


@pytest.mark.usefixtures("nothing_known")
def test_it_fails_closed_where_the_climb_itself_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "CLIMB", "1 / 0")
    with pytest.raises(SandboxError, match="so no code is run"):
        tiers.strongest()


@pytest.mark.usefixtures("nothing_known")
@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "riscv64")])
def test_it_fails_closed_elsewhere(
    system: str, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(SandboxError, match="has no sandbox here"):
        tiers.strongest()


@pytest.mark.skipif(landlock.version() > 0, reason="this kernel has Landlock")
def test_without_landlock_no_candidate_runs_in_its_tier() -> None:
    with pytest.raises(SandboxError):
        tiers.start("landlock")


def test_what_cannot_be_shut_in_does_not_run(tmp_path: Path) -> None:
    """A limit the kernel refuses: the child ends before any code reaches it."""
    if landlock.version() == 0:
        pytest.skip("this kernel has no Landlock")
    sandbox = tiers.start("landlock")
    refused = Limits(seconds=2.0, memory=2.5)  # type: ignore[arg-type]
    with pytest.raises(SandboxError, match="could not be shut in"), sandbox.execute("", refused):
        pytest.fail("it ran")
    assert is_gone(sandbox.pid)


def trivial(sandbox: Sandbox, count: int) -> None:
    for number in range(count):
        with sandbox.execute("def f(x): return x + 1", SHORT) as candidate:
            assert candidate.call("f", [number], {}) == number + 1


def rate_of(sandboxes: tuple[Sandbox, ...], count: int) -> float:
    """Executions a second over sandboxes that run side by side."""
    began = time.monotonic()
    with ThreadPoolExecutor(len(sandboxes)) as threads:
        list(threads.map(lambda sandbox: trivial(sandbox, count), sandboxes))
    return len(sandboxes) * count / (time.monotonic() - began)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tier", "least"), [("landlock", 300), ("bubblewrap+landlock", 60), ("bubblewrap", 60)]
)
def test_throughput(tier: str, least: int) -> None:
    if reason := refusal(tier):
        pytest.skip(reason)
    with tiers.start(tier) as one, tiers.start(tier) as two:  # type: ignore[arg-type]
        before = handles(one.pid), handles(os.getpid())
        # other work on the machine can only slow it down: the best round counts
        rate = max(rate_of((one, two), 250) for _ in range(5))
        assert (handles(one.pid), handles(os.getpid())) == before
        still_judges(one)
    print(f"{tier}: {rate:.0f} executions a second over two sandboxes")
    assert rate >= least
