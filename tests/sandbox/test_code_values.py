"""Right code earns 1.0 whatever kind of value it answers with, raises or is given."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from strop.sandbox import referee
from strop.sandbox.client import Sandbox
from strop.sandbox.confine.jail import Limits

LIMITS = Limits(seconds=4.0, wall=20.0)


def judge(sandbox: Sandbox, code: str, tests: Any, **more: Any) -> referee.TestFinding:
    plain = {"entry_point": None, "prompt": "", "partial": False, "limits": asdict(LIMITS)}
    return referee.judge({"code": code, "tests": tests} | plain | more, sandbox)


NODE = """
class Node:
    def __init__(self, value, next=None):
        self.value, self.next = value, next
        self.left = self.right = None
def length(node):
    return 0 if node is None else 1 + length(node.next)
def last(node):
    return node if node.next is None else last(node.next)
def double(node):
    node.value *= 2
    return node
"""

RIGHT: dict[str, tuple[str, str]] = {
    # classes of the candidate's, as answers and as arguments
    "a class as argument": (
        "class Pair:\n def __init__(s, a, b): s.a, s.b = a, b\n"
        "def most(ps, n): return max(p.a for p in ps[:n])",
        "assert most([Pair(5, 24), Pair(39, 60), Pair(1, 2)], 3) == 39\n"
        "assert most([Pair(5, 24), Pair(39, 60)], 1) == 5",
    ),
    "a linked list": (
        NODE,
        "head = Node(1, Node(2))\nassert length(head) == 2\nhead.next.next = Node(3)\n"
        "assert length(head) == 3\nassert last(head).value == 3\nassert last(head).next is None\n"
        "assert last(head) is head.next.next\nassert double(head) is head\nassert head.value == 2\n"
        "assert head.next != None",
    ),
    "Solution()": (
        "class Solution:\n def twoSum(self, nums, target):\n"
        "  return next([i, j] for i in range(len(nums)) for j in range(i) "
        "if nums[i] + nums[j] == target)",
        "s = Solution()\nassert s.twoSum([2, 7, 11], 9) == [1, 0]\n"
        "assert Solution().twoSum(nums=[3, 3], target=6) == [1, 0]",
    ),
    "a stack": (
        "class Stack:\n def __init__(s): s.held = []\n def push(s, x): s.held.append(x); return s\n"
        " def pop(s): return s.held.pop()\n def __len__(s): return len(s.held)\n"
        " def __contains__(s, x): return x in s.held\n def __iter__(s): return iter(s.held)\n"
        " def __getitem__(s, i): return s.held[i]\n def __str__(s): return f'<{s.held}>'\n"
        " def __bool__(s): return bool(s.held)",
        "s = Stack()\nassert not s\ns.push(1).push(2)\nassert len(s) == 2 and s\nassert 2 in s\n"
        "assert 7 not in s\nassert list(s) == [1, 2]\nassert s[0] == 1\nassert s.pop() == 2\n"
        "assert str(s) == '<[1]>' and f'{s}' == '<[1]>'\nassert isinstance(s, Stack)\n"
        "assert type(s) is Stack and type(s).__name__ == 'Stack' == s.__class__.__name__",
    ),
    "a class derived from a list": (
        "class Stack(list):\n def push(self, x): self.append(x)\n def top(self): return self[-1]",
        "s = Stack()\ns.push(1)\ns.push(2)\nassert s.top() == 2\nassert s.pop() == 2\n"
        "assert len(s) == 1\nassert s == [1]",
    ),
    "a cache": (
        "class LRU:\n def __init__(s, n): s.n, s.d = n, {}\n"
        " def get(s, k): return s.d.get(k, -1)\n"
        " def put(s, k, v):\n  s.d[k] = v\n  while len(s.d) > s.n: s.d.pop(next(iter(s.d)))",
        "c = LRU(2)\nc.put(1, 1); c.put(2, 4); c.put(3, 9)\nassert c.get(1) == -1\n"
        "assert c.get(3) == 9",
    ),
    "operators of a class": (
        "class V:\n def __init__(s, x, y): s.x, s.y = x, y\n"
        " def __add__(s, o): return V(s.x + o.x, s.y + o.y)\n"
        " def __mul__(s, k): return V(s.x * k, s.y * k)\n"
        " def __abs__(s): return (s.x ** 2 + s.y ** 2) ** 0.5\n"
        " def __repr__(s): return f'V({s.x}, {s.y})'",
        "a = V(1, 2) + V(3, 4)\nassert (a.x, a.y) == (4, 6)\n"
        "assert repr(V(1, 2) * 3) == 'V(3, 6)'\n"
        "assert abs(V(3, 4)) == 5",
    ),
    "properties and class attributes": (
        "class Circle:\n count = 0\n def __init__(s, r): s.r = r; Circle.count += 1\n"
        " @property\n def area(s): return 3 * s.r ** 2\n @staticmethod\n"
        " def unit(): return Circle(1)\n"
        " @classmethod\n def of(cls, r): return cls(r)",
        "assert Circle(2).area == 12\nassert Circle.unit().r == 1\nassert Circle.of(3).area == 27\n"
        "assert Circle.count == 3",
    ),
    "a dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n x: int\n y: int = 0\n"
        "def f(n): return P(n, 2 * n)",
        "assert f(2).y == 4\nassert str(f(1)) == 'P(x=1, y=2)'\np = f(1)\np.x = 9\nassert p.x == 9",
    ),
    "an enumeration": (
        "from enum import Enum, IntEnum\nclass Color(Enum):\n RED = 1\n BLUE = 2\n"
        "class Level(IntEnum):\n LOW = 1\n HIGH = 2\n"
        "def f(x): return Color.RED if x else Color.BLUE\ndef g(x): return Level.HIGH",
        "assert f(1) == Color.RED\nassert f(0) is Color.BLUE\nassert f(1) != Color.BLUE\n"
        "assert f(1).name == 'RED'\nassert g(0) == 2\nassert g(0).name == 'HIGH'",
    ),
    "a closure": (
        "def adder(n): return lambda x: x + n\ndef counter():\n n = 0\n def inc():\n"
        "  nonlocal n\n  n += 1\n  return n\n return inc",
        "assert adder(3)(4) == 7\nc = counter()\nc()\nassert c() == 2",
    ),
    "a context manager": (
        "class T:\n def __enter__(s): s.on = True; return s\n def __exit__(s, *e): s.on = False\n",
        "with T() as t:\n    assert t.on\nassert not t.on",
    ),
    # truth, iteration
    "a match as truth": (
        "import re\ndef f(s): return re.match('a+b', s)",
        "assert f('aab')\nassert not f('ba')\nassert f('b') is None\n"
        "assert f('aabc').group() == 'aab'"
        "\nassert f('aab').span() == (0, 3)\nassert bool(f('ab')) == True",
    ),
    "a generator": (
        "def f(n):\n for i in range(n): yield i * i",
        "assert list(f(4)) == [0, 1, 4, 9]\nassert sum(f(4)) == 14\nassert 4 in f(4)\n"
        "g = f(2)\nassert next(g) == 0\nassert next(g) == 1\nassert next(g, None) is None\n"
        "assert [a for a, b in zip(f(9), 'xy')] == [0, 1]\nassert tuple(f(2)) == (0, 1)",
    ),
    "an endless generator": (
        "def f():\n a, b = 0, 1\n while True:\n  yield a\n  a, b = b, a + b",
        "from itertools import islice\nassert list(islice(f(), 6)) == [0, 1, 1, 2, 3, 5]\n"
        "g = f()\nassert [next(g) for _ in range(3)] == [0, 1, 1]",
    ),
    "a generator that is exhausted": (
        "def f(): yield 1",
        "g = f()\nnext(g)\ntry:\n    next(g)\n    over = False\nexcept StopIteration:\n"
        "    over = True\n"
        "assert over",
    ),
    "ranges, maps, views": (
        "def r(n): return range(n)\ndef m(xs): return map(str, xs)\n"
        "def z(a, b): return zip(a, b)\ndef k(d): return d.keys()\ndef v(d): return d.values()\n"
        "def i(d): return d.items()\ndef b(xs): return reversed(xs)\n"
        "def fl(xs): return filter(None, xs)\ndef en(xs): return enumerate(xs)",
        "assert r(3) == range(3)\n"
        "assert list(r(3)) == [0, 1, 2] and r(5)[2] == 2 and len(r(9)) == 9\n"
        "assert list(m([1, 2])) == ['1', '2']\nassert dict(z('ab', [1, 2])) == {'a': 1, 'b': 2}\n"
        "d = {'a': 1, 'b': 2}\nassert k(d) == d.keys() == {'a', 'b'}\n"
        "assert sorted(v(d)) == [1, 2]\n"
        "assert i(d) == d.items()\nassert list(b([1, 2])) == [2, 1]\n"
        "assert list(fl([0, 1])) == [1]\n"
        "assert list(en('a')) == [(0, 'a')]",
    ),
    # library values
    "decimal and fraction": (
        "from decimal import Decimal\nfrom fractions import Fraction\n"
        "def d(x): return Decimal(x) / 4\ndef f(a, b): return Fraction(a, b)",
        "from decimal import Decimal\nfrom fractions import Fraction\n"
        "assert d('1') == Decimal('0.25')\nassert d(1) == 0.25\nassert f(2, 4) == Fraction(1, 2)\n"
        "assert f(2, 4) == 0.5 and f(1, 3).denominator == 3",
    ),
    "dates": (
        "from datetime import date, datetime, timedelta\n"
        "def d(y): return date(y, 2, 28) + timedelta(days=1)\n"
        "def t(s): return datetime.fromisoformat(s)\ndef span(a, b): return b - a",
        "import datetime\nassert d(2024) == datetime.date(2024, 2, 29)\nassert d(2023).month == 3\n"
        "assert t('2024-01-02T03:04:05').hour == 3\n"
        "a, b = datetime.date(2024, 1, 1), datetime.date(2024, 3, 1)\n"
        "assert span(a, b).days == 60\n"
        "assert span(a, b) == datetime.timedelta(60)",
    ),
    "collections": (
        "from collections import *\ndef dq(xs): return deque(xs, 2)\ndef c(s): return Counter(s)\n"
        "def o(p): return OrderedDict(p)\ndef dd():\n d = defaultdict(list)\n d['a'].append(1)\n"
        " return d\nP = namedtuple('P', 'x y')\ndef p(a, b): return P(a, b)\n"
        "def nest(): return defaultdict(lambda: 7)",
        "from collections import deque, Counter, OrderedDict\n"
        "assert dq([1, 2, 3]) == deque([2, 3])\nassert dq([1])[0] == 1\nassert c('aab')['z'] == 0\n"
        "assert c('aab') == {'a': 2, 'b': 1}\nassert c('aab').most_common(1) == [('a', 2)]\n"
        "assert o([(1, 2)]) == OrderedDict([(1, 2)])\n"
        "assert dd() == {'a': [1]} and dd()['q'] == []\n"
        "assert p(1, 2) == (1, 2)\nassert p(1, 2).y == 2\n"
        "assert p(3, 4)._asdict() == {'x': 3, 'y': 4}\n"
        "assert nest()['x'] == 7",
    ),
    "a named tuple as argument": (
        "from typing import NamedTuple\nclass P(NamedTuple):\n x: int\n y: int\n"
        " def flip(self): return P(self.y, self.x)\n"
        "def s(p): return p.x + p.y\ndef make(x): return P(x, 0)",
        "assert s(P(1, 2)) == 3\nassert s(make(5)) == 5\nassert make(5) == (5, 0)\n"
        "assert P(1, 2).flip().x == 2\nassert P(1, 2).flip() == P(2, 1)",
    ),
    "numpy": (
        "import numpy as np\ndef a(xs): return np.array(xs) * 2\ndef s(xs): return np.mean(xs)\n"
        "def n(xs): return np.argmax(xs)\ndef b(xs): return np.any(np.array(xs) > 1)\n"
        "def t(m): return m.T\ndef d(): return {'a': np.float32(0.5)}\n"
        "def e(): return np.array(['x', 'y'])",
        "import numpy as np\nassert (a([1, 2]) == np.array([2, 4])).all()\n"
        "assert s([1, 2]) == 1.5\n"
        "assert n([1, 5, 2]) == 1 and b([3])\nassert np.allclose(a([0.5]), [1.0])\n"
        "assert t(np.array([[1, 2], [3, 4]])).tolist() == [[1, 3], [2, 4]]\n"
        "assert isinstance(n([1]), np.integer)\nassert d() == {'a': 0.5}\n"
        "assert a([1]).shape == (1,)\n"
        "assert e().tolist() == ['x', 'y']",
    ),
    "other library values": (
        "import array, uuid, pathlib, types\ndef a(): return array.array('i', [1, 2])\n"
        "def u(): return uuid.UUID(int=1)\ndef p(x): return pathlib.PurePosixPath(x) / 'y'\n"
        "def b(): return bytearray(b'ab')\ndef n(): return types.SimpleNamespace(x=1)\n"
        "def e(): return ...\ndef c(): return complex(1, 2)\ndef t(x): return type(x)\n"
        "def s(): return slice(1, 3)",
        "assert list(a()) == [1, 2]\nassert u().int == 1\nassert str(p('x')) == 'x/y'\n"
        "assert b() == b'ab'\nassert n().x == 1\nassert e() is ...\nassert c() == 1 + 2j\n"
        "assert t(3) == int and t([]) is list\nassert [1, 2, 3][s()] == [2, 3]",
    ),
    "classes derived from numbers and text": (
        "class Meters(float):\n def feet(self): return self * 3\nclass Name(str): pass\n"
        "def m(x): return Meters(x)\ndef n(x): return Name(x)\n"
        "def both(): return {Name('a'): Meters(1)}",
        "assert m(2) == 2.0\nassert m(2).feet() == 6\nassert m(2) + 1 == 3\nassert n('a') == 'a'\n"
        "assert n('a').upper() == 'A' and len(n('abc')) == 3\nassert both() == {'a': 1.0}\n"
        "assert ''.join([n('a'), n('b')]) == 'ab'",
    ),
    # exceptions
    "the text of an exception": (
        "def f(x):\n if x < 0: raise Exception('neg')\n return x",
        "try:\n    f(-1)\n    said = None\nexcept Exception as e:\n    said = str(e)\n"
        "assert said == 'neg'",
    ),
    "exceptions of the system": (
        "import json, os\ndef o(): open('no such file')\ndef u(): b'\\xff'.decode('utf-8')\n"
        "def j(): json.loads('{')\ndef x(): raise SystemExit(3)\ndef k(): {}['a']\n"
        "def t(): raise TimeoutError('late')",
        "import json\ndef kind(g, want):\n    try:\n        g()\n    except want as e:\n"
        "        return e\n"
        "assert kind(o, OSError).errno == 2\nassert type(kind(o, OSError)) is FileNotFoundError\n"
        "assert kind(o, FileNotFoundError).filename == 'no such file'\n"
        "assert kind(u, ValueError).start == 0\n"
        "assert kind(u, UnicodeDecodeError).encoding == 'utf-8'\n"
        "assert kind(j, json.JSONDecodeError).pos == 1\nassert kind(j, ValueError) is not None\n"
        "assert kind(x, SystemExit).code == 3\nassert kind(k, KeyError).args == ('a',)\n"
        "assert str(kind(k, LookupError)) == \"'a'\"\nassert str(kind(t, OSError)) == 'late'",
    ),
    "an exception of its own": (
        "class Poor(ValueError):\n def __init__(self, need, have):\n"
        "  super().__init__(f'need {need}')\n  self.need, self.have = need, have\n"
        "def pay(n, m):\n if n > m: raise Poor(n, m)\n return m - n",
        "assert pay(1, 2) == 1\ntry:\n    pay(5, 2)\n    assert False\nexcept Poor as e:\n"
        "    assert str(e) == 'need 5' and e.have == 2 and isinstance(e, ValueError)\n"
        "import contextlib\nwith contextlib.suppress(ValueError):\n    pay(3, 1)\n    assert False",
    ),
    "StopIteration on purpose": (
        "class Up:\n def __init__(s, n): s.n = n\n def __iter__(s): return s\n"
        " def __next__(s):\n  if s.n == 0: raise StopIteration\n  s.n -= 1\n  return s.n\n"
        "def stop(): raise StopIteration",
        "assert list(Up(3)) == [2, 1, 0]\nu = Up(0)\ntry:\n    next(u)\n    assert False\n"
        "except StopIteration:\n    pass\ntry:\n    stop()\n    assert False\n"
        "except (TypeError, StopIteration):\n    pass",
    ),
    # how tests are written
    "a walrus": ("def f(x): return x * x", "assert (y := f(3)) == 9 and y > 8\nassert y == 9"),
    "assertions in a class": (
        "def f(x): return x + 1",
        "class TestF:\n    want = 2\n    assert f(1) == want\n    def test(self):\n"
        "        assert f(2) == 3\nTestF().test()",
    ),
    "constants of the module": (
        "MOD = 10 ** 9 + 7\nNAMES = ['a', 'b']\ndef f(x): return x % MOD",
        "assert f(MOD + 5) == 5\nassert NAMES == ['a', 'b']",
    ),
    "math that only the code imports": (
        "import math\ndef f(x): return math.sqrt(x)",
        "assert math.isclose(f(2), 1.41421356, rel_tol=1e-6)",
    ),
    "isclose that only the code imports": (
        "from math import isclose\ndef f(x): return x / 3",
        "assert isclose(f(1), 0.3333333333333333)"
    ),
    "sys that nobody imports": (
        "import sys\ndef f(xs): return min(xs, default=sys.maxsize)", "assert f([]) == sys.maxsize"
    ),
    "sys that the tests import": (
        "def f(n): return 1 if n < 1 else f(n - 1)",
        "import sys\nsys.setrecursionlimit(3000)\nassert f(10) == 1\n"
        "assert sys.version_info[0] == 3",
    ),
    "a function named sum": ("def sum(a, b): return a + b", "assert sum(10, 15) == 25"),
    "a function named max beside a built-in one": (
        "def max(xs):\n return sorted(xs)[-1]", "assert set([max([1, 3])]) == set([3])"
    ),
    "a function named gcd": ("def gcd(a, b): return a if b == 0 else gcd(b, a % b)",
                             "assert gcd(12, 8) == 4"),
    "a module-level alias": ("import math\nf = math.factorial", "assert f(5) == 120"),
    "a partial": ("from functools import partial\nf = partial(pow, 2)", "assert f(5) == 32"),
    "a decorated function": (
        "from functools import lru_cache\n@lru_cache(None)\n"
        "def f(n): return n if n < 2 else f(n-1) + f(n-2)",
        "assert f(50) == 12586269025\nassert f.cache_info().currsize == 51",
    ),
    "keywords, stars, defaults": (
        "def f(a, *rest, b=2, **more): return a, rest, b, more",
        "assert f(1, 2, 3, b=4, c=5) == (1, (2, 3), 4, {'c': 5})",
    ),
    "odd numbers": (
        "def f(x): return {'nan': float('nan'), 'inf': float('-inf'), 'big': 7 ** 400}[x]",
        "import math\nassert math.isnan(f('nan'))\nassert f('inf') == -math.inf\n"
        "assert f('big') == 7 ** 400",
    ),
    "state between calls": ("seen = []\ndef f(x): seen.append(x); return len(seen)",
                            "assert f(1) == 1\nassert f(1) == 2"),
    "nested collections": (
        "def f(): return {(1, 2): [{'a'}, frozenset({1})], None: (True, b'x')}",
        "assert f() == {(1, 2): [{'a'}, frozenset({1})], None: (True, b'x')}",
    ),
    "async assertions": (
        "def f(x): return x", "import asyncio\nasync def go():\n    assert f(1) == 1\n"
        "asyncio.run(go())"
    ),
    "text of many kinds": (
        "def f(x): return x", "for s in ('\\u2028', '\\x1c', '\\ud800', '\\0', '😀'):\n"
        "    assert f(s) == s"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("partial", [False, True], ids=["", "partial"])
def test_right_code_is_right(name: str, partial: bool, sandbox: Sandbox) -> None:
    code, tests = RIGHT[name]
    finding = judge(sandbox, code, tests, partial=partial)
    assert finding.unjudged is None, finding.unjudged
    assert finding.passed == finding.total > 0, finding.said
