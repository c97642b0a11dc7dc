"""Tests of code in every form they come in, and what is counted of them."""

from __future__ import annotations

import signal
from dataclasses import asdict
from typing import Any

import pytest

from strop.sandbox import referee, suite
from strop.sandbox.client import Sandbox
from tests.support.sandboxes import QUICK, judge, nothing_stays, score, still_judges

HUMAN_EVAL = """
METADATA = {"author": "x"}

def check(candidate):
    assert candidate([1, 2]) == 3
    assert candidate([]) == 0
    assert abs(candidate([0.1, 0.2]) - 0.3) < 1e-6
"""


@pytest.mark.parametrize(
    ("code", "passed"),
    [("def total(xs): return sum(xs)", 1), ("def total(xs): return sum(xs) or 1", 0),
     ("def other(xs): return sum(xs)", 0), ("def total(xs: return", 0)],
)  # fmt: skip
def test_human_eval(code: str, passed: int, sandbox: Sandbox) -> None:
    assert score(judge(sandbox, code, HUMAN_EVAL, entry_point="total")) == (passed, 1)


def test_mbpp(sandbox: Sandbox) -> None:
    tests = ["import math", "assert area(1) == math.pi", "assert area(0) == 0"]
    right = "import math\ndef area(r): return math.pi * r * r"
    assert score(judge(sandbox, right, tests)) == (1, 1)
    assert score(judge(sandbox, "def area(r): return 3.14 * r * r", tests)) == (0, 1)


def test_programs(sandbox: Sandbox) -> None:
    tests = [{"input": "1 2\n", "output": "3\n"}, {"input": "5 -5", "output": "0"}]
    right, wrong = "print(sum(map(int, input().split())))", "print(3)"
    assert score(judge(sandbox, right, tests)) == (1, 1)
    assert score(judge(sandbox, wrong, tests)) == (0, 1)
    assert score(judge(sandbox, wrong, tests, partial=True)) == (1, 2)
    main = "def main(): print(sum(map(int, input().split())))\nif __name__ == '__main__': main()"
    assert score(judge(sandbox, main, tests)) == (1, 1)


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [("3\n", "3", True), ("3  \n\n\n", "3\n", True), ("a\r\nb", "a\nb", True), ("", "", True),
     (" 3", "3", False), ("3 4", "34", False), ("\n3", "3", False), ("3\n\n4", "3\n4", False)],
)  # fmt: skip
def test_same_output(printed: str, expected: str, same: bool) -> None:
    assert suite.same_output(printed, expected) is same


def test_a_candidate_cannot_replace_a_helper_of_the_prompt(sandbox: Sandbox) -> None:
    prompt = "def near(a, b):\n    return abs(a - b) < 0.1\n\ndef half(x):\n    ...\n"
    tests = "def check(candidate):\n    assert near(candidate(3), 1.5)\n"
    cheat = "def near(a, b): return True\ndef half(x): return 7"
    asked = {"prompt": prompt, "entry_point": "half"}
    assert score(judge(sandbox, cheat, tests, **asked)) == (0, 1)
    assert score(judge(sandbox, "def half(x): return x / 2", tests, **asked)) == (1, 1)


@pytest.mark.parametrize(
    ("tests", "why"),
    [("assert f(", "no Python"), ("x = 1 / 0\nassert f(1)", "by themselves"),
     ("assert f(print)", "cannot be sent"), ("", "claim nothing"), ("f(1)", "claim nothing"),
     ("def check(candidate): assert candidate(1)", "entry_point"), ([{"in": "x"}], "a test is"),
     ("assert f('x' * 2**24)", "cannot be sent"), ([], "claim nothing")],
)  # fmt: skip
def test_broken_tests_say_nothing(tests: Any, why: str, sandbox: Sandbox) -> None:
    finding = judge(sandbox, "def f(x): return x", tests)
    assert why in (finding.unjudged or "")
    still_judges(sandbox)


SIGNS = """
assert sign(5) == 1
assert sign(-5) == -1
assert sign(0) == 0
for n in (1, 2, 3):
    assert sign(n) == 1
"""


@pytest.mark.parametrize(
    ("code", "counts"),
    [
        ("def sign(x): return (x > 0) - (x < 0)", (6, 6)),
        ("def sign(x): return 1", (4, 6)),  # wrong for -5 and 0
        ("def sign(x): return x // abs(x)", (5, 6)),  # raises for 0
        ("def sign(x): return 1 if x in (5, 1) else [][0]", (2, 6)),
        ("import os\ndef sign(x): return 1 if x == 5 else os._exit(0)", (1, 6)),
        ("oops", (0, 6)),  # nothing ran: three, and three passes of the loop
    ],
)
def test_partial_credit(code: str, counts: tuple[int, int], sandbox: Sandbox) -> None:
    assert score(judge(sandbox, code, SIGNS, partial=True)) == counts
    alone = score(judge(sandbox, code, SIGNS))
    assert alone == (int(counts[0] == counts[1]), 1)


def test_ending_the_tests_early_gains_nothing(sandbox: Sandbox) -> None:
    tests = "assert f(1) == 1\nkept = f(2) + 1\nassert f(3) == 3\nassert f(4) == 4"
    stop = "def f(x): return x if x == 1 else None"
    assert score(judge(sandbox, stop, tests, partial=True)) == (1, 3)
    skipped = "for x in f(1):\n    assert f(x) == x"
    assert score(judge(sandbox, "def f(x): return []", skipped)) == (0, 1)


def test_an_answer_sent_back_is_the_candidate_s_fault(sandbox: Sandbox) -> None:
    """Else it could make its own verdict void: text is longer on the way back."""
    code = "def f(x): return '\\x7f' * (12 * 2**20) if x == 1 else x"
    tests = "assert f(f(1) + f(1)) == 2"
    assert score(judge(sandbox, code, tests)) == (0, 1)


def test_endless_work_of_the_tests_on_an_answer_is_the_candidate_s_fault(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(referee, "SPARE_SECONDS", 0.3)
    tests = "assert sum(1 for _ in range(f(1))) == 3"
    with nothing_stays(sandbox):
        assert score(judge(sandbox, "def f(x): return 10**12", tests, limits=asdict(QUICK))) == (
            0, 1,
        )  # fmt: skip
    assert score(judge(sandbox, "def f(x): return 3", tests)) == (1, 1)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_built_in_errors_arrive_as_what_they_are(sandbox: Sandbox) -> None:
    tests = """
try:
    f(-1)
    said = "nothing"
except ValueError as error:
    said = str(error)
assert said == "negative"
"""
    code = "class Mine(ValueError): pass\ndef f(x): raise {}('negative')"
    assert score(judge(sandbox, code.format("Mine"), tests)) == (1, 1)
    assert score(judge(sandbox, code.format("OSError"), tests)) == (0, 1)
