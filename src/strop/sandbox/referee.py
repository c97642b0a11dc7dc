"""The trusted process that holds tests and expected outputs, and asks a jailed candidate.

`python -m strop.sandbox.referee TIER`: a request a line in, a finding a line out (JSON).
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from strop.errors import SandboxError
from strop.sandbox.client import Candidate, CandidateError, Sandbox
from strop.sandbox.jail import Limits
from strop.sandbox.suite import (
    CLAIM,
    FailedError,
    Ledger,
    SuiteError,
    called,
    compiled,
    has_check,
    helpers,
    programs,
    same_output,
)
from strop.sandbox.tiers import start


@dataclass(frozen=True, slots=True)
class Finding:
    """What the tests say: claims that held, claims tried (without `partial` all of them are one),
    why the first failed; or why nothing can be said (`unjudged`)."""

    passed: int = 0
    total: int = 0
    said: str = ""
    unjudged: str | None = None


SPARE_SECONDS = 4.0
"""How much longer than its candidate a judgement may take: what a candidate returns may make
the tests' own work endless."""

MEMORY = 8 * 2**30
"""Bytes a referee may use, for the same reason."""


class TimeUpError(BaseException):
    """The tests take too long; no `except Exception` of theirs may stop it."""


def judge(request: dict[str, Any], sandbox: Sandbox) -> Finding:
    """Run a request's tests against its code.

    `{"code", "tests", "entry_point", "prompt", "partial", "limits"}`; tests are Python with
    assertions (or HumanEval's `check`), a list of those, or `[{"input", "output"}, ...]`. Uses the
    alarm signal, so only the main thread may judge.
    """
    tests, limits = request["tests"], Limits(**request["limits"])
    ledger = Ledger(request["partial"])
    try:
        if isinstance(tests, list) and tests and isinstance(tests[0], dict):
            _run_programs(request["code"], tests, limits, ledger, sandbox)
        else:
            _run_claims(request, limits, ledger, sandbox)
    except SuiteError as error:
        return Finding(unjudged=str(error))
    except FailedError:
        pass
    if not ledger.total:
        return Finding(unjudged="the tests claim nothing")
    if not ledger.partial:
        return Finding(int(ledger.passed == ledger.total), 1, ledger.said)
    return Finding(ledger.passed, ledger.total, ledger.said)


def _run_programs(
    code: str, tests: list[dict[str, Any]], limits: Limits, ledger: Ledger, sandbox: Sandbox
) -> None:
    for program in programs(tests):
        printed = sandbox.run_program(code, program.given, limits)
        ended_well = not printed.killed and not printed.status
        right = ended_well and same_output(printed.output, program.expected)
        ledger.claim(partial(bool, right))


def _run_claims(request: dict[str, Any], limits: Limits, ledger: Ledger, sandbox: Sandbox) -> None:
    tests, entry_point = request["tests"], request["entry_point"]
    code, tree = compiled(tests if isinstance(tests, str) else "\n".join(map(str, tests)))
    known = helpers(request["prompt"], entry_point)
    if has_check(tree) and entry_point is None:
        raise SuiteError("tests with check(candidate) need an entry_point")
    asked: list[str] = []
    try:
        with sandbox.prepare(limits) as candidate, _time_for(limits.seconds + SPARE_SECONDS):
            candidate.load(request["code"])
            names = called(tree) - known.keys() | ({entry_point} if entry_point else set())
            space = known | {name: _proxy(candidate, name, asked) for name in names}
            space[CLAIM] = ledger.claim
            exec(code, space)
            if has_check(tree):
                space["check"](space[entry_point])
    except (FailedError, SuiteError, SandboxError):
        raise
    except (TimeUpError, Exception) as error:  # noqa: BLE001 - see `_blame`
        _blame(error, asked, ledger, tree)
    else:
        if asked and not ledger.total and _written(tree):
            _fail_all("no claim was reached", ledger, tree)


def _blame(error: BaseException, asked: list[str], ledger: Ledger, tree: ast.Module) -> None:
    """An error between the claims is the candidate's once it was asked, or did not even load;
    else the tests are broken."""
    if not asked and not isinstance(error, CandidateError):
        raise SuiteError(f"the tests fail by themselves: {type(error).__name__}: {error}")
    _fail_all(f"{type(error).__name__}: {error}", ledger, tree)


def _fail_all(said: str, ledger: Ledger, tree: ast.Module) -> None:
    """What was not reached has not held: a candidate gains nothing by ending the tests early."""
    ledger.total = max(ledger.total + 1, _written(tree))
    ledger.say(said)


def _written(tree: ast.Module) -> int:
    return sum(isinstance(node, ast.Assert) for node in ast.walk(tree))


@contextlib.contextmanager
def _time_for(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TimeUpError(f"the tests took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _proxy(candidate: Candidate, name: str, asked: list[str]) -> Callable[..., Any]:
    def call(*args: object, **kwargs: object) -> Any:
        asked.append(name)
        return candidate.call(name, args, kwargs)

    return call


def main() -> None:
    """Serve until stdin closes."""
    # tests may print; the findings have a channel of their own
    findings = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    least = MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most)
    resource.setrlimit(resource.RLIMIT_AS, (least, most))
    with start(sys.argv[1]) as sandbox:  # type: ignore[arg-type]
        print("ready", file=findings, flush=True)
        for line in sys.stdin:
            finding = judge(json.loads(line), sandbox)
            print(json.dumps(asdict(finding)), file=findings, flush=True)


if __name__ == "__main__":
    main()
