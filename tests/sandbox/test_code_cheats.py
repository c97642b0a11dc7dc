"""No cheat earns more than its honest share, and none chooses to be unjudged."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from strop.rewards.code import code_tests
from strop.sandbox import referee
from strop.sandbox.client import Sandbox
from strop.sandbox.confine import landlock
from strop.sandbox.confine.jail import Limits

LIMITS = Limits(seconds=1.0, wall=6.0)

needs_landlock = pytest.mark.skipif(
    landlock.version() == 0, reason="this kernel has no Landlock: no candidate is run on it"
)


def judge(sandbox: Sandbox, code: str, tests: Any, **more: Any) -> referee.TestFinding:
    plain = {"entry_point": None, "prompt": "", "partial": False, "limits": asdict(LIMITS)}
    return referee.judge({"code": code, "tests": tests} | plain | more, sandbox)


def score(finding: referee.TestFinding) -> tuple[int, int]:
    assert finding.unjudged is None, finding.unjudged
    return finding.passed, finding.total


YES = """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __bool__(self): return True
    def __hash__(self): return hash(9)
    def __sub__(self, other): return 0.0
    __rsub__ = __add__ = __radd__ = __mul__ = __mod__ = __truediv__ = __sub__
    def __abs__(self): return 0.0
    def __round__(self, n=None): return self
    def __len__(self): return 1
    def __iter__(self): return iter([self])
    def __getitem__(self, key): return self
    def __call__(self, *args, **kwargs): return self
    def __getattr__(self, name): return lambda *args, **kwargs: True
    def __repr__(self): return "9"
    __str__ = __repr__
"""

LINK = """
import json, os, struct
def forge(message):
    packed = message if isinstance(message, bytes) else json.dumps(message).encode()
    for fd in range(3, 64):
        try:
            os.write(fd, struct.pack(">I", len(packed)) + packed)
        except OSError:
            pass
"""

SQUARE = "assert f(3) == 9"

WRONG: dict[str, tuple[str, str]] = {
    # an object that is equal to everything
    "equal to all": (YES + "def f(x): return Yes()", SQUARE),
    "equal from the right": (YES + "def f(x): return Yes()", "assert 9 == f(3)"),
    "equal inside a list": (YES + "def f(x): return [Yes()]", "assert f(3) == [9]"),
    "equal as a key": (YES + "def f(x): return {Yes(): Yes()}", "assert f(3) == {9: 9}"),
    "equal in a set": (YES + "def f(x): return [Yes()]", "assert set(f(3)) == {9}"),
    "near to all": (YES + "def f(x): return Yes()", "assert abs(f(3) - 9.0) < 1e-6"),
    "near, divided": (YES + "def f(x): return Yes()", "assert abs(f(3) / 9 - 1) < 1e-6"),
    "rounded": (YES + "def f(x): return Yes()", "assert round(f(3), 2) == 9"),
    "less than all": (YES + "def f(x): return Yes()", "assert 8.9 < f(3) < 9.1"),
    "contains all": (YES + "def f(x): return Yes()", "assert 9 in f(3)"),
    "contained in all": (YES + "def f(x): return Yes()", "assert f(3) in (9, 10)"),
    "a method that says yes": (YES + "def f(x): return Yes()", "assert f(3).startswith('ni')"),
    "a set that says yes": (YES + "def f(x): return Yes()", "assert f(3).issuperset({9})"),
    "isclose says yes": (YES + "def f(x): return Yes()\ndef isclose(a, b): return True",
                         "assert isclose(f(3), 9.0)"),
    "math of its own": (YES + "math = Yes()\ndef f(x): return 8", "assert math.isclose(f(3), 9)"),
    "isinstance says yes": (YES + "def isinstance(*a): return True\ndef f(x): return 'x'",
                            "assert isinstance(f(3), int)"),
    "a class that says yes": (
        "class M(type):\n def __instancecheck__(c, o): return True\n"
        " def __eq__(c, o): return True\n"
        " __hash__ = type.__hash__\nclass Int(metaclass=M): pass\ndef f(x): return Int()",
        "assert isinstance(f(3), int)"),
    "a type equal to all": (
        "class M(type):\n def __eq__(c, o): return True\n __hash__ = type.__hash__\n"
        "class C(metaclass=M): pass\ndef f(x): return C", "assert f(3) == int"),
    "an int of its own": (
        "class I(int):\n def __eq__(s, o): return True\n def __hash__(s): return hash(9)\n"
        " def __sub__(s, o): return 0\n def __int__(s): return 9\n def __index__(s): return 9\n"
        "def f(x): return I(1)", "assert f(3) == 9 or abs(f(3) - 9) < 1"),
    "a float of its own": (
        "class F(float):\n def __eq__(s, o): return True\n def __sub__(s, o): return 0.0\n"
        " __rsub__ = __sub__\ndef f(x): return F(1)",
        "import math\nassert math.isclose(f(3), 9.0) or abs(f(3) - 9.0) < 1e-3"),
    "a text of its own": (
        "class S(str):\n def __eq__(s, o): return True\n def __hash__(s): return hash('nine')\n"
        " def startswith(s, o): return True\n def lower(s): return 'nine'\ndef f(x): return S('x')",
        "assert f(3) == 'nine' or f(3).startswith('ni') or f(3).lower() == 'nine'"),
    "a list of its own": (
        "class L(list):\n def __eq__(s, o): return True\n def __contains__(s, o): return True\n"
        " def sort(s): return None\n def count(s, o): return 1\ndef f(x): return L()",
        "assert f(3) == [9] or 9 in f(3) or f(3).count(9) == 1"),
    "a dictionary of its own": (
        "class D(dict):\n def __eq__(s, o): return True\n def __getitem__(s, k): return 9\n"
        " def __missing__(s, k): return 9\n def get(s, *a): return 9\ndef f(x): return D()",
        "assert f(3) == {3: 9} or f(3).get(3) == 8"),
    "a named tuple of its own": (
        "from collections import namedtuple\nclass P(namedtuple('P', 'x')):\n"
        " def __eq__(s, o): return True\n __hash__ = tuple.__hash__\ndef f(x): return P(1)",
        "assert f(3) == (9,)"),
    "a decimal of its own": (
        "from decimal import Decimal\nclass D(Decimal):\n def __eq__(s, o): return True\n"
        " __hash__ = Decimal.__hash__\ndef f(x): return D(1)",
        "from decimal import Decimal\nassert f(3) == Decimal(9)"),
    "a number that changes": (
        "n = iter(range(10 ** 6))\nclass C:\n def __float__(s): return float(next(n))\n"
        " __int__ = __index__ = lambda s: next(n)\ndef f(x): return C()",
        "x = f(3)\nassert x == 9 or x == 10 or 9 <= x <= 9"),
    "numpy objects": (
        YES + "import numpy as np\ndef f(x): return np.array([Yes()], dtype=object)",
        "assert (f(3) == [9]).all()"),
    "an array of its own": (
        "import numpy as np\nclass A(np.ndarray):\n def __eq__(s, o): return np.array([True])\n"
        "def f(x): return np.zeros(1).view(A)", "assert (f(3) == 9).all()"),
    # what comes later
    "a deferred object": (
        "class Later:\n def __init__(s): s.asked = []\n"
        " def __getattr__(s, n): return lambda *a: a[0] if a else 9\ndef f(x): return Later()",
        "assert f(3).union({9}) == {9} or f(3).difference({9}) == {9}"),
    "an iterator that says yes": (
        YES + "def f(x):\n yield Yes()", "assert list(f(3)) == [9]"),
    "an iterator of nothing": ("def f(x): return iter(())", "assert list(f(3)) == [9]"),
    "an iterator without an end": (
        "def f(x):\n while True: yield 9", "assert list(f(3)) == [9]"),
    "an iterator that stops the loop": (
        "class I:\n def __iter__(s): return s\n def __next__(s): raise SystemExit(0)\n"
        "def f(x): return I()", "assert [n for n in f(3)] == [9]"),
    # ending the tests
    "StopIteration in a map": (
        "def f(x):\n if x > 1: raise StopIteration\n return 1",
        "cases = [(n, n * n) for n in range(1, 99)]\n"
        "assert all(map(lambda p: f(p[0]) == p[1], cases))"),
    "StopIteration in a zip": (
        "def f(x):\n if x > 1: raise StopIteration\n return 1",
        "xs = [1, 2, 3]\nassert all(a == b for a, b in zip(map(f, xs), [1, 4, 9]))"),
    "StopIteration of its own": (
        "class S(StopIteration): pass\ndef f(x): raise S()",
        "assert all(map(lambda n: f(n) == n * n, [1, 2]))"),
    "StopIteration in a loop": (
        "def f(x): raise StopIteration",
        "for got, want in zip(map(f, [1, 2]), [1, 4]):\n    assert got == want"),
    "StopIteration where it is awaited": (
        "def f(x): raise StopIteration",
        "try:\n    ok = all(map(lambda n: f(n) == n * n, [1, 2]))\nexcept StopIteration:\n"
        "    ok = False\nassert ok"),
    "GeneratorExit": ("def f(x): raise GeneratorExit", SQUARE),
    "KeyboardInterrupt": ("def f(x): raise KeyboardInterrupt", SQUARE),
    "SystemExit": ("def f(x): raise SystemExit(0)", SQUARE),
    "SystemExit between claims": ("def f(x): raise SystemExit(0)", "y = f(3)\nassert y == 9"),
    "SystemExit while loading": ("raise SystemExit(0)", SQUARE),
    "BaseException": ("class B(BaseException): pass\ndef f(x): raise B", SQUARE),
    "FailedError": ("class FailedError(Exception): pass\ndef f(x): raise FailedError", SQUARE),
    "the referee's own errors": (
        "from strop.sandbox.values.codec import NotPlainError, TooMuchError\n"
        "def f(x): raise TooMuchError('x')", SQUARE),
    "an error like the referee's": (
        "class UnjudgedError(Exception): pass\nUnjudgedError.__module__ = "
        "'strop.sandbox.values.remote'\ndef f(x): raise UnjudgedError", SQUARE),
    "an error that cannot be told": (
        "class E(Exception):\n def __str__(s): raise SystemExit\ndef f(x): raise E", SQUARE),
    "an error with a forged line": (
        LINK + "def f(x): forge({'dict': [['error', {'dict': [['line', ['builtins.int']], "
        "['args', 5], ['said', 7], ['fields', 1]]}]]})", SQUARE),
    "an assertion that passes": ("def f(x): raise AssertionError", SQUARE),
    # patched
    "patched builtins": (
        "import builtins\nbuiltins.abs = builtins.all = builtins.sorted = lambda *a: True\n"
        "def f(x): return 8", "assert sorted([f(3)]) == [9] and abs(f(3) - 9) == 0"),
    "a len of its own": ("def len(x): return 9\ndef f(x): return []", "assert len(f(3)) == 9"),
    "an abs of its own": ("def abs(x): return 0\ndef f(x): return 1", "assert abs(f(3) - 9) < 1"),
    "a Counter of its own": (
        YES + "def Counter(x): return Yes()\ndef f(x): return 'x'",
        "assert Counter(f(3)) == Counter('9')"),
    "another codec": (
        "import strop.sandbox.values.shelf as s\ns.Shelf.pack_other = lambda *a: {'int': '0x9'}\n"
        "class C: pass\ndef f(x): return 8", SQUARE),
    "a forged object": (
        LINK + "def f(x): forge({'dict': [['value', {'object': [0, 'x', {'object': [0, 'x', None]}"
        "]}]]})", SQUARE),
    "a forged module": (LINK + "def f(x): forge({'dict': [['value', {'module': 'os'}]]})", SQUARE),
    "a forged type": (LINK + "def f(x): forge({'dict': [['value', {'type': 'os.system'}]]})",
                      SQUARE),
    "a forged array": (
        LINK + "def f(x): forge({'dict': [['value', {'array': ['|O8', [1], {'bytes': '00' * 8}]}"
        "]]})", "assert (f(3) == 9).all()"),
    "forged fields": (
        LINK + "def f(x): forge({'dict': [['value', {'named': ['x', ['a=exit()'], [9]]}]]})",
        SQUARE),
    "a forged method": (LINK + "def f(x): forge({'dict': [['value', {'method': 0}]]})", SQUARE),
    # choosing not to be judged
    "colliding hashes in a set": (
        "def f(x): return [n * (2 ** 61 - 1) for n in range(400000)]", "assert set(f(3)) == {9}"),
    "colliding hashes in a Counter": (
        "def f(x): return [n * (2 ** 61 - 1) for n in range(400000)]",
        "from collections import Counter\nassert Counter(f(3)) == {9: 1}"),
    "a sum without an end": ("def f(x): return 10 ** 12", "assert sum(range(f(3))) == 3"),
    "a power without an end": ("def f(x): return 10 ** 9", "assert 3 ** f(3) == 27"),
    "a long text": ("def f(x): return 10 ** 10", "assert 'x' * f(3) == 'xxx'"),
    "a forged set while loading": (
        LINK + "forge({'dict': [['value', {'set': [{'int': hex(n * (2 ** 61 - 1))}"
        " for n in range(4 * 10 ** 5)]}]]})", SQUARE),
    "a forged set as a name": (
        LINK + "forge({'dict': [['value', None]]})\nforge({'dict': [['value', {'dict': [['f', "
        "{'set': [{'int': hex(n * (2 ** 61 - 1))} for n in range(4 * 10 ** 5)]}]]}]]})", SQUARE),
    "a class where a number is meant": (
        "class f:\n def __init__(s, x): pass\n def __eq__(s, o): return True",
        "assert f(3) == 9"),
    "two of its classes": (
        "class f:\n def __init__(s, x): pass\n def __eq__(s, o): return True\ng = f",
        "assert f(3) == g(9)"),
    "a class with a class's name": (
        "class Total:\n def __init__(s, x): pass\n def __eq__(s, o): return True",
        "assert Total(3) == 9\nassert Total(2) == 4"),
    "a sum with a class's name": (
        YES + "Total = lambda x: Yes()", "assert abs(Total(3) - 9) < 1e-6"),
    "its object in place of plain data": (
        "class N:\n def __eq__(s, o): return True\ndef f(x): return N()",
        "class P:\n    pass\nassert f(3) in [9, P()]"),
    "an exception as an answer": ("def f(x): return ValueError(9)", SQUARE),
    "a huge answer": ("def f(x): return 'x' * (17 * 2 ** 20)", SQUARE),
    "an answer that is too long when sent back": (
        "def f(x): return '\\x7f' * (12 * 2 ** 20) if x == 3 else x", "assert f(f(3) + f(3)) == 9"),
    "a deep answer": ("def f(x):\n v = []\n for _ in range(10 ** 5): v = [v]\n return v", SQUARE),
    "no such function": ("def g(x): return 9", SQUARE),
    "no such function, between claims": ("def g(x): return 9", "y = f(3)\nassert y == 9"),
    "no such constant": ("def f(x): return 9", "assert f(3) == NINE"),
    "a constant between claims": ("x = 1", "half = NINE / 2\nassert half == 4.5"),
}  # fmt: skip
"""Code, and tests that it must fail: with 0, whatever it does."""


@pytest.mark.parametrize("name", WRONG)
def test_a_cheat_earns_nothing(
    name: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(referee, "SPARE_SECONDS", 1.0)
    code, tests = WRONG[name]
    assert score(judge(sandbox, code, tests)) == (0, 1)
    passed, _ = score(judge(sandbox, code, tests, partial=True))
    assert passed == 0
    right = judge(sandbox, "def add(a, b): return a + b", "assert add(2, 3) == 5")
    assert score(right) == (1, 1), "and the sandbox judges on"


HUNDRED = "for n in range(100):\n    got = f(n)\n    assert got == n * n"

SHARES: dict[str, tuple[str, str, tuple[int, int]]] = {
    "exits in a loop": ("import os\ndef f(x): return x * x if x < 3 else os._exit(0)", HUNDRED,
    (3, 100)),
    "raises in a loop": ("def f(x): return x * x if x < 3 else 1 / 0", HUNDRED, (3, 100)),
    "SystemExit in a loop": ("def f(x):\n if x > 2: raise SystemExit\n return x * x", HUNDRED,
    (3, 100)),
    "honest in a loop": ("def f(x): return x * x if x < 3 else 0", HUNDRED, (3, 100)),
    "hangs in a loop": ("def f(x):\n while x > 2: pass\n return x * x", HUNDRED, (3, 100)),
    "exits over cases": (
        "import os\ndef f(x): return x * x if x < 3 else os._exit(0)",
        "cases = [(n, n * n) for n in range(50)]\nfor x, y in cases:\n    got = f(x)\n"
        "    assert got == y\n"
        "assert f(7) == 49", (3, 51)),
    "exits over a zip": (
        "import os\ndef f(x): return x * x if x < 3 else os._exit(0)",
        "xs = range(10)\nfor i, (x, y) in enumerate(zip(xs, [n * n for n in xs])):\n"
        "    got = f(x)\n    assert got == y", (3, 10)),
    "exits in check": (
        "import os\ndef f(x): return x * x if x < 3 else os._exit(0)",
        "def check(candidate):\n    for n in range(5):\n        got = candidate(n)\n"
        "        assert got == n * n\n    assert candidate(9) == 81\n    assert candidate(8) == 64",
        (3, 7)),
    "fails to load for check": (
        "oops", "def check(candidate):\n    assert candidate(1) == 1\n"
        "    assert candidate(2) == 4", (0, 2)),
    "exits in a function of the tests": (
        "import os\ndef f(x): return x * x if x < 3 else os._exit(0)",
        "def case(n):\n    got = f(n)\n    assert got == n * n\n"
        "case(1)\ncase(2)\ncase(3)\ncase(4)\ncase(5)", (2, 5)),
    "exits in nested loops": (
        "import os\ndef f(x): return x * x if x < 3 else os._exit(0)",
        "for a in range(4):\n    for b in range(5):\n        got = f(a + b)\n"
        "        assert got == (a + b) ** 2",
        (3, 20)),
    "exits before the last line": (
        "import os\ndef f(x): return x * x if x < 3 else os._exit(0)",
        "assert f(1) == 1\nassert f(2) == 4\nlast = f(3)", (2, 3)),
    "makes the tests endless": (
        "def f(x): return x * x if x < 2 else 10 ** 12",
        "assert f(1) == 1\nassert sum(1 for _ in range(f(2))) == 4\nassert f(3) == 9", (1, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", SHARES)
def test_ending_the_tests_early_earns_what_was_right(
    name: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(referee, "SPARE_SECONDS", 1.0)
    code, tests, share = SHARES[name]
    point = "f" if "check" in tests else None
    assert score(judge(sandbox, code, tests, partial=True, entry_point=point)) == share
    assert score(judge(sandbox, code, tests, entry_point=point)) == (0, 1)


# --- what nobody but the candidate could say ------------------------------------------------------

PAIR = """
class Pair:
    def __init__(self, a, b): self.a, self.b = a, b
    def __eq__(self, other): return {eq}
    def __lt__(self, other): return {eq}
    def __hash__(self): return 1
def f(x): return Pair(x, x * x)
"""

UNJUDGED = {
    "equal to one that the tests made": "assert f(3) == Pair(3, 9)",
    "from the other side": "assert Pair(3, 9) == f(3)",
    "unlike one": "assert f(3) != Pair(3, 8)",
    "in a list": "assert [f(3)] == [Pair(3, 9)]",
    "less than one": "assert Pair(1, 2) < Pair(3, 9)",
    "in a set": "assert len({Pair(3, 9), Pair(3, 9)}) == 1",
    "even where the tests catch it": "try:\n    ok = f(3) == Pair(3, 9)\nexcept Exception:\n"
                                     "    ok = False\nassert ok",
}  # fmt: skip


@pytest.mark.parametrize("name", UNJUDGED)
@pytest.mark.parametrize(
    "eq", ["(self.a, self.b) == (other.a, other.b)", "True"], ids=["right", "cheat"]
)
def test_what_only_a_candidate_s_class_could_say_is_unjudged(
    name: str, eq: str, sandbox: Sandbox
) -> None:
    finding = judge(sandbox, PAIR.format(eq=eq), UNJUDGED[name])
    assert "the tests compare a Pair, a class of the candidate's" in (finding.unjudged or "")


def test_a_function_as_argument_is_unjudged(sandbox: Sandbox) -> None:
    finding = judge(sandbox, "def f(g, x): return g(x)", "assert f(lambda x: x, 1) == 1")
    assert "cannot be sent" in (finding.unjudged or "")


# --- what runs where ------------------------------------------------------------------------------


@needs_landlock
@pytest.mark.parametrize("entry_point", ["f", None])
@pytest.mark.parametrize("turns", [False, True], ids=["text", "assistant turn"])
def test_text_of_a_prompt_never_runs_outside(
    entry_point: str | None, turns: bool, tmp_path: Path
) -> None:
    escaped = tmp_path / "escaped"
    code = (
        f"try:\n    open({str(escaped)!r}, 'w').write('x')\nexcept OSError:\n    pass\n"
        "LIMIT = 3\ndef near(a, b):\n    return a == b\n"
    )
    prompt: Any = code + "\ndef f(x):\n    '''Return x.'''\n"
    if turns:
        prompt = [{"role": "assistant", "content": code},
                  {"role": "user", "content": "def f(x):\n    '''Return x.'''\n"}]  # fmt: skip
    tests = "assert near(f(1), 1) and f(2) < LIMIT"
    scores = code_tests([prompt] * 2, ["    return x", "    return 4"], tests=[tests] * 2,
                        entry_point=entry_point)  # fmt: skip
    assert scores == [1.0, 0.0]
    assert not escaped.exists()


@needs_landlock
def test_the_tests_run_outside(tmp_path: Path) -> None:
    """They are the task author's, who may read a file with expected values."""
    (tmp_path / "expected").write_text("4")
    tests = f"want = int(open({str(tmp_path / 'expected')!r}).read())\nassert f(2) == want"
    assert code_tests([""], ["def f(x): return x * x"], tests=[tests]) == [1.0]
