"""Which function is under test, what a prompt gives, how programs are compared, what limits cut."""

from __future__ import annotations

import time
from typing import Any

import pytest

from strop.rewards.code import code_tests, program_of
from strop.sandbox.confine import landlock

pytestmark = pytest.mark.skipif(
    landlock.version() == 0, reason="this kernel has no Landlock: no candidate is run on it"
)

STUB = "def f(x):\n    '''Return x.'''\n"
ADD = "def add(a, b):\n    return a + b\n"
HELPED = "def near(a, b):\n    return abs(a - b) < 0.1\n\ndef half(x):\n    '''Half of x.'''\n"


def score(prompt: Any, completion: str, tests: Any, **options: Any) -> float | None:
    return code_tests([prompt], [completion], tests=[tests], **options)[0]


@pytest.mark.parametrize(
    ("prompt", "completion", "tests", "expected"),
    [
        # a prompt that is Python, without an entry point
        (STUB, "    return x", "assert f(1) == 1", 1.0),
        (STUB, "    return x + 1", "assert f(1) == 1", 0.0),
        (STUB, "```python\ndef f(x):\n    return x\n```", "assert f(1) == 1", 1.0),
        (ADD, "def add(a, b):\n    return 0", "assert add(1, 2) == 3", 0.0),
        (ADD, "def add(a, b):\n    return b + a", "assert add(1, 2) == 3", 1.0),
        ("def f(x):\n    pass\n", "def f(x): return x", "assert f(1) == 1", 1.0),
        ("def f(x):\n    raise NotImplementedError\n", "def f(x): return x", "assert f(1) == 1",
        1.0),
        # what a prompt gives cannot be replaced
        (HELPED, "    return x / 2", "assert near(half(3), 1.5)", 1.0),
        (HELPED, "    return 7\ndef near(a, b): return True", "assert near(half(3), 1.5)", 0.0),
        (HELPED, "    class C:\n        __sub__ = __rsub__ = lambda s, o: 0\n    return C()",
         "assert near(half(3), 1.5)", 0.0),
        (ADD, "def twice(x): return add(x, x)", "assert twice(2) == add(2, 2)", 1.0),
        (ADD, "def twice(x): return 0\ndef add(a, b): return 0", "assert twice(2) == add(2, 2)",
        0.0),
        ("LIMIT = 9\n" + STUB, "    return x", "assert f(LIMIT) == 9", 1.0),
        ("LIMIT = 9\n" + STUB, "    return 0\nLIMIT = 0", "assert f(LIMIT) == 9", 0.0),
        ("import math\n" + STUB, "    return x / 3", "assert math.isclose(f(1), 1 / 3)", 1.0),
        ("from math import isclose as near\n" + STUB,
         "    return 0\ndef near(a, b): return True", "assert near(f(1), 1 / 3)", 0.0),
        # two functions to mend
        ("def a(x):\n    return 0\n\ndef b(x):\n    return 0\n",
         "def a(x): return x\ndef b(x): return -x", "assert a(1) == 1\nassert b(1) == -1", 1.0),
        # a class that a prompt gives
        ("class Node:\n    def __init__(self, v, next=None):\n"
            "        self.v, self.next = v, next\n\n"
         "def f(n):\n    '''Sum.'''\n",
         "    return 0 if n is None else n.v + f(n.next)", "assert f(Node(1, Node(2))) == 3", 1.0),
        ("class Account:\n    '''Money.'''\n",
         "class Account:\n    def __init__(self, n): self.n = n\n    def pay(self, m): self.n -= m",
         "a = Account(5)\na.pay(2)\nassert a.n == 3", 1.0),
        # names of built-in functions
        ("Write a function `max` of a list.", "def max(xs):\n    return sorted(xs)[-1]",
         "assert max([1, 3]) == 3", 1.0),
        ("Write a function sum.", "def sum(xs):\n    return 0", "assert sum([1, 3]) == 4", 0.0),
        ("Write round(x) so that halves go up.", "import math\n"
            "def round(x): return math.floor(x + 0.5)",
         "assert abs(round(2.5) - 3) < 1e-9", 1.0),
        ("?", "def min(x): return 0\ndef max(x): return 0", "assert min([1]) == max([1])", None),
    ],
)  # fmt: skip
def test_whose_a_name_is(prompt: Any, completion: str, tests: str, expected: float | None) -> None:
    assert score(prompt, completion, tests) == expected


def test_an_entry_point_is_under_test_whatever_it_is_called() -> None:
    code = "def len(x):\n    return 7"
    assert score("", code, "assert len([]) == 7", entry_point="len") == 1.0
    check = "def check(candidate):\n    assert candidate([]) == 7"
    assert score("", code, check, entry_point="len") == 1.0


FENCED = '''Here:
```python
def f(x):
    """Twice x.

    ```
    >>> f(2)
    4
    ```
    """
    # it's `"""` in a comment
    return 2 * x
```
That's it.
'''


def test_a_fence_inside_a_docstring_does_not_end_the_code() -> None:
    assert program_of("", FENCED).strip().endswith("return 2 * x")
    assert score("", FENCED, "assert f(2) == 4") == 1.0
    several = f"```python\ndef f(x): return 'it''s'\n```\nor\n{FENCED}"
    assert program_of("", several) == program_of("", FENCED)
    assert program_of("", '```\nx = """\n```\nand\n```\ny = 1\n```') == "y = 1\n", "never closed"
    assert program_of("", "```python\nx = '''a'''\n") == "x = '''a'''\n"


@pytest.mark.parametrize("sign", ["```\n", '"""', "'''", '\\"""', "```\n'''", "\\", "'", "#```\n"])
def test_no_text_makes_reading_slow(sign: str) -> None:
    began = time.process_time()
    program_of("", "```\n" + sign * 30_000)
    assert time.process_time() - began < 2.0


# --- whole programs -------------------------------------------------------------------------------

PROGRAMS: dict[str, tuple[str, str, float]] = {
    "a warning beside the output": ("import sys\nprint(3)\nprint('careful', file=sys.stderr)",
    "3", 1.0),
    "warnings.warn": ("import warnings\nwarnings.warn('old')\nprint(3)", "3", 1.0),
    "the answer only on standard error": ("import sys\nprint(3, file=sys.stderr)", "3", 0.0),
    "U+2028 in the output": ("print('a\\u2028b')", "a\u2028b", 1.0),
    "a newline for U+2028": ("print('a\\nb')", "a\u2028b", 0.0),
    "a newline for \\x1c": ("print('a\\nb')", "a\x1cb", 0.0),
    "\\x1c in the output": ("print('a\\x1cb')", "a\x1cb", 1.0),
    "\\x0c at the end of a line": ("print('a')", "a\x0c", 0.0),
    "Windows lines": ("print('a\\r\\nb')", "a\nb", 1.0),
    "an exit function": ("import atexit\natexit.register(lambda: print(2))\nprint(1)", "1\n2", 1.0),
    "a thread that prints": (
        "import threading, time\ndef late():\n time.sleep(0.2)\n print(2)\n"
        "threading.Thread(target=late).start()\nprint(1)", "1\n2", 1.0),
    "an exit function after an error": (
        "import atexit\natexit.register(lambda: print(2))\nprint(1)\nraise SystemExit(1)", "1\n"
        "2", 0.0),
    "two megabytes of output": ("print('x' * 2_000_000)", "x" * 2_000_000, 1.0),
    "two other megabytes": ("print('y' * 2_000_000)", "x" * 2_000_000, 0.0),
    "a flood": ("while True: print('x' * 1000)", "x", 0.0),
    "a flood of errors": ("import sys\nwhile True: print('x' * 1000, file=sys.stderr)", "x", 0.0),
    "input in pieces": ("import sys\nprint(len(sys.stdin.read().splitlines()), end='')", "2", 1.0),
    "bytes": ("import sys\nsys.stdout.buffer.write(b'3\\n')", "3", 1.0),
    "sys.exit": ("import sys\nprint(3)\nsys.exit()", "3", 1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str) -> None:
    code, expected, wanted = PROGRAMS[name]
    tests = [{"input": "1\n2\n", "output": expected}]
    assert score("", f"```python\n{code}\n```", tests, seconds=2.0) == wanted


# --- time -----------------------------------------------------------------------------------------

BUSY = """
import time
def f(x):
    until = time.process_time() + x
    while time.process_time() < until: pass
    return x
def g(x):
    time.sleep(x)
    return x
"""


def test_cpu_time_is_limited_and_waiting_is_not() -> None:
    assert score("", BUSY, "assert f(0.5) == 0.5", seconds=1.5) == 1.0
    assert score("", BUSY, "assert f(3) == 3", seconds=0.5) == 0.0
    assert score("", BUSY, "assert g(1.5) == 1.5", seconds=0.5, wall_seconds=8) == 1.0
    assert score("", BUSY, "assert g(60) == 60", seconds=0.5, wall_seconds=1) == 0.0


def test_load_on_the_machine_decides_nothing() -> None:
    """Many at once, each of which uses most of its CPU time."""
    count = 8
    scores = code_tests([""] * count, [BUSY] * count, tests=["assert f(0.7) == 0.7"] * count,
                        seconds=2.0, wall_seconds=30.0)  # fmt: skip
    assert scores == [1.0] * count
