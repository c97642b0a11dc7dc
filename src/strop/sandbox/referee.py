"""The trusted process that holds tests and expected outputs, and calls a jailed candidate.

`python -m strop.sandbox.referee TIER`: a request a line in, a finding a line out (JSON).
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib
import json
import os
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import Any

from strop.sandbox.asked import Candidate, CandidateError, Meant
from strop.sandbox.client import Sandbox
from strop.sandbox.confine.jail import MOST_WAITING, Limits
from strop.sandbox.suite import (
    CLAIM,
    IS_INSTANCE,
    SAME,
    STOPPED,
    TYPE,
    FailedError,
    Ledger,
    SuiteError,
    TimeUpError,
    compiled,
    has_check,
    parsed,
    programs,
    same_output,
)
from strop.sandbox.suites.names import Names, UnclearError, names_of
from strop.sandbox.suites.unreached import Loops, Unreached
from strop.sandbox.tiers import start
from strop.sandbox.values.raised import StoppedError
from strop.sandbox.values.remote import Role, UnjudgedError, is_instance, same, type_of


@dataclass(frozen=True, slots=True)
class TestFinding:
    """Result of the tests: passed claims, tried claims (without `partial` all claims count as one),
    why the first one failed; or why the tests cannot be judged (`unjudged`)."""

    passed: int = 0
    total: int = 0
    said: str = ""
    unjudged: str | None = None


SPARE_SECONDS = 4.0
"""CPU seconds for the tests' own work, which a candidate's answer could make endless."""

MEMORY = 8 * 2**30
"""Bytes a referee may use, for the same reason."""

MORE_OUTPUT = 2**20
"""Bytes a program may print beyond what is expected of it."""

LOADED, ASKED = b"l", b"a"
"""Progress marks of the tests' process: the code is loaded; the tests have called it. If the
process ends without a finding, they show whether the candidate or the tests are to blame."""


def judge(request: dict[str, Any], sandbox: Sandbox) -> TestFinding:
    """Run a request's tests against its code.

    `{"code", "tests", "entry_point", "prompt", "partial", "limits"}`; tests are Python with
    assertions (or HumanEval's `check`), a list of those, or `[{"input", "output"}, ...]`.
    """
    tests, limits = request["tests"], Limits(**request["limits"])
    try:
        if isinstance(tests, list) and tests and isinstance(tests[0], dict):
            return _run_programs(request, limits, sandbox)
        return _run_claims(request, limits, sandbox)
    except SuiteError as error:
        return TestFinding(unjudged=str(error))


def _run_programs(request: dict[str, Any], limits: Limits, sandbox: Sandbox) -> TestFinding:
    ledger = Ledger(request["partial"])
    with contextlib.suppress(FailedError):
        for program in programs(request["tests"]):
            room = max(limits.output, len(program.expected.encode(errors="replace")) + MORE_OUTPUT)
            printed = sandbox.run_program(
                request["code"], program.given, replace(limits, output=room)
            )
            ended_well = not printed.killed and not printed.status
            with ledger:
                ledger.holds(ended_well and same_output(printed.output, program.expected))
    return _found(ledger)


def _run_claims(request: dict[str, Any], limits: Limits, sandbox: Sandbox) -> TestFinding:
    """Run the tests in a process of their own, because a candidate's answer can make them
    endless."""
    with contextlib.ExitStack() as stack:
        links = [stack.enter_context(sandbox.prepare(limits)).link]
        if _suite_of(request).names.helpers:
            links.append(stack.enter_context(sandbox.twin().prepare(limits)).link)
        outcome = sandbox.apart.do(
            _judge_apart, json.dumps(request).encode(), links, SPARE_SECONDS,
            MOST_WAITING * (limits.wall + SPARE_SECONDS),
        )  # fmt: skip
    if not outcome.ended:
        return TestFinding(**json.loads(outcome.said.lstrip(LOADED + ASKED)))
    if outcome.said == LOADED:
        raise SuiteError(f"the tests fail by themselves: {outcome.ended}")
    total = Unreached(_suite_of(request).tree, Loops()).all(("check",))
    return TestFinding(0, max(1, total if request["partial"] else 1), outcome.ended)


@dataclass(frozen=True, slots=True)
class _Suite:
    code: Any
    tree: ast.Module
    names: Names
    entry_point: str | None


def _suite_of(request: dict[str, Any]) -> _Suite:
    tests = request["tests"]
    text = tests if isinstance(tests, str) else "\n".join(map(str, tests))
    return _read(text, request["prompt"], request["entry_point"], request["partial"])


@lru_cache(maxsize=64)
def _read(text: str, prompt: str, entry_point: str | None, partial: bool) -> _Suite:
    """The tests of one task, which many completions share."""
    tree = parsed(text)
    try:
        names = names_of(tree, prompt, entry_point)
    except UnclearError as error:
        raise SuiteError(str(error)) from None
    if has_check(tree) and entry_point is None:
        raise SuiteError("tests with check(candidate) need an entry_point")
    return _Suite(compiled(text, partial), tree, names, entry_point)


def _judge_apart(
    message: bytes, links: Sequence[socket.socket], say: Callable[[bytes], None]
) -> None:
    """Runs in the tests' own process: reads a request, sends progress marks and a finding."""
    request = json.loads(message)
    try:
        finding = _Bench(_suite_of(request), links, request).judged(say)
    except UnjudgedError as error:
        finding = TestFinding(unjudged=str(error))
    say(json.dumps(asdict(finding)).encode())


class _Bench:
    """Runs the tests of one request, in a process of their own."""

    def __init__(
        self, suite: _Suite, links: Sequence[socket.socket], request: dict[str, Any]
    ) -> None:
        self._suite, self._request = suite, request
        self._ledger, self._is_loaded = Ledger(request["partial"]), False
        self._unreached = Unreached(suite.tree, self._ledger.loops)
        names = suite.names
        errors = {name: type(name, (Exception,), {}) for name in names.errors}
        classes: dict[str, Role] = dict.fromkeys(names.classes, "class")
        meant = Meant(classes | dict.fromkeys(names.mixed, "mixed class"), errors)
        self._candidate = Candidate(links[0], meant, self._leave_unjudged)
        self._helpers = [Candidate(link, Meant(), self._leave_unjudged) for link in links[1:]]

    def _leave_unjudged(self, why: str) -> None:
        """Keep the reason, because the tests might catch the exception."""
        if not self._ledger.said:
            self._ledger.unjudged = self._ledger.unjudged or why

    def judged(self, say: Callable[[bytes], None]) -> TestFinding:
        """Run the tests; `say` sends progress marks."""
        try:
            self._candidate.load(self._request["code"])
            space = self._space()
            say(LOADED)
            self._is_loaded, self._candidate.starts = True, partial(say, ASKED)
            exec(self._suite.code, space)
            if self._suite.entry_point and has_check(self._suite.tree):
                space["check"](space[self._suite.entry_point])
        except (FailedError, UnjudgedError):
            pass
        except KeyboardInterrupt:
            raise
        except (TimeUpError, SystemExit, Exception) as error:  # noqa: BLE001 - see `_blame`
            self._blame(error)
        else:
            self._expect_claims()
        return _found(self._ledger)

    def _space(self) -> dict[str, Any]:
        """The names that the tests see besides their own definitions."""
        names = self._suite.names
        space: dict[str, Any] = {
            "__name__": "tests", CLAIM: self._ledger, SAME: same, IS_INSTANCE: is_instance,
            TYPE: type_of, STOPPED: StoppedError,
        }  # fmt: skip
        for name, (module, inner) in names.library.items():
            with contextlib.suppress(ImportError, AttributeError):
                found = importlib.import_module(module)
                space[name] = getattr(found, inner) if inner else found
        for helper in self._helpers:
            space |= self._given(helper)
        return space | self._candidate.names(names.candidate)

    def _given(self, helper: Candidate) -> dict[str, Any]:
        """The prompt's functions and constants. The prompt is untrusted, so it runs in a jail, too;
        it has its own jail, because the candidate could replace its functions."""
        try:
            helper.load(self._request["prompt"])
            return helper.names(self._suite.names.helpers)
        except CandidateError as error:
            raise SuiteError(f"the prompt's own code fails: {error}") from None

    def _blame(self, error: BaseException) -> None:
        """Blame an error between the claims: the candidate if the tests have called it, or it lacks
        a name or did not load; else the tests."""
        is_theirs = not (self._candidate.called or self._candidate.lacks)
        if self._is_loaded and is_theirs and not isinstance(error, CandidateError):
            raise SuiteError(f"the tests fail by themselves: {type(error).__name__}: {error}")
        self._ledger.say(f"{type(error).__name__}: {error}")
        if self._candidate.called:
            self._add(self._unreached.after(error.__traceback__))
        else:
            self._add(self._unreached.all(("check",)))

    def _add(self, left: int) -> None:
        """Count claims that were not reached as failed, so that a candidate gains nothing by ending
        the tests."""
        least = 1 if self._ledger.passed == self._ledger.total else 0
        self._ledger.total += max(left, least)

    def _expect_claims(self) -> None:
        if self._candidate.called and not self._ledger.total and self._unreached.all():
            self._ledger.say("no claim was reached")
            self._add(self._unreached.all())


def _found(ledger: Ledger) -> TestFinding:
    if ledger.unjudged is not None:
        return TestFinding(unjudged=ledger.unjudged)
    if not ledger.total:
        return TestFinding(unjudged="the tests claim nothing")
    if not ledger.partial:
        return TestFinding(int(ledger.passed == ledger.total), 1, ledger.said)
    return TestFinding(ledger.passed, ledger.total, ledger.said)


def main() -> None:
    """Serve until stdin closes."""
    # tests may print; the findings have a channel of their own
    findings = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    least = MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most)
    resource.setrlimit(resource.RLIMIT_AS, (least, most))
    with start(sys.argv[1]) as sandbox:  # type: ignore[arg-type]
        gc.freeze()  # memory that the tests' processes share with this one stays shared
        print("ready", file=findings, flush=True)
        for line in sys.stdin:
            finding = judge(json.loads(line), sandbox)
            print(json.dumps(asdict(finding)), file=findings, flush=True)


if __name__ == "__main__":
    main()
