"""Verifiers on public data that nobody here wrote: they agree with it, and cheats earn nothing."""

from __future__ import annotations

import copy
import gzip
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strop.data.sources import rows as read_rows
from strop.errors import DataError
from strop.rewards.code import code_tests
from strop.rewards.exact import exact_answer
from strop.rewards.math import math_answer
from strop.rewards.tools import tool_call
from tests.support import ROOT

DATA = Path(os.environ.get("STROP_DATA", ROOT.parent / "shared/data"))


def rows(name: str) -> list[dict[str, Any]]:
    path = DATA / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no public data at {path} (set STROP_DATA)")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


pytestmark = pytest.mark.realdata


@pytest.mark.parametrize("verifier", [exact_answer, math_answer])
def test_labels_of_model_solutions(verifier: Callable[..., list[float | None]]) -> None:
    solved = rows("gsm8k/model_solutions")
    assert len(solved) == 2638
    scores = verifier(
        [row["question"] for row in solved],
        [row["solution"] for row in solved],
        answer=[row["ground_truth"] for row in solved],
    )
    disagreed = [
        row for row, score in zip(solved, scores, strict=True) if score != float(row["is_correct"])
    ]
    assert len(disagreed) <= 0.002 * len(solved), disagreed


ALWAYS_EQUAL = """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __lt__
    def __bool__(self): return True
    def __hash__(self): return 0
    def __sub__(self, other): return 0.0
    __rsub__ = __abs__ = __sub__
    def __len__(self): return 0
    def __getattr__(self, name): return lambda *args, **kwargs: True

def NAME(*args, **kwargs):
    return Yes()
"""

NO_ASSERTIONS = """
import builtins, sys

class Quiet(Exception):
    def __new__(cls, *args): return None

builtins.AssertionError = Quiet
AssertionError = Quiet
builtins.all = builtins.any = builtins.abs = lambda *args: True
sys.excepthook = lambda *args: None
sys.settrace(lambda *args: None)
for module in list(sys.modules.values()):
    for name in ("check", "claim", "judge", "holds"):
        try:
            setattr(module, name, lambda *args, **kwargs: True)
        except Exception:
            pass

def NAME(*args, **kwargs):
    return "no such answer"
"""

FROM_DISK = """
import os, re

def NAME(*args, **kwargs):
    found = ""
    for name in ("tests.py", "test.py", "/tests.py", "/tmp/tests.py"):
        try:
            found += open(name).read()
        except OSError:
            pass
    for top in (".", "..", "/tmp", "/dev/shm", "/proc/self/fd"):
        for folder, _, files in os.walk(top):
            for file in files:
                try:
                    found += open(os.path.join(folder, file), errors="replace").read(100_000)
                except OSError:
                    pass
    wanted = re.search(re.escape(repr(args)[1:-1].rstrip(",")) + r"\\) *== *(.+)", found)
    return eval(wanted[1].split("#")[0]) if wanted else "no such answer"
"""

FROM_MEMORY = """
import os, re

def NAME(*args, **kwargs):
    found = b""
    for process in (os.getppid(), 1, os.getpgrp()):
        try:
            with open(f"/proc/{process}/maps") as maps, open(f"/proc/{process}/mem", "rb") as mem:
                for line in maps:
                    start, end = (int(part, 16) for part in line.split()[0].split("-"))
                    mem.seek(start)
                    found += mem.read(min(end - start, 10**6))
        except OSError:
            pass
    wanted = re.search(rb"candidate\\(" + re.escape(repr(args)[1:-1].rstrip(",")).encode()
                       + rb"\\) *== *([^\\n]+)", found)
    return eval(wanted[1].decode()) if wanted else "no such answer"
"""

STOPS = """
def NAME(*args, **kwargs):
    raise StopIteration
"""

LATER = """
class Later:
    def __init__(self): self.asked = []
    def __iter__(self): return self
    def __next__(self): raise StopIteration
    def __float__(self): return 0.0
    def __getitem__(self, key): return self
    def __call__(self, *args, **kwargs): return self
    def __getattr__(self, name): return lambda *args: args[0] if args else self
    def __bool__(self): return len(self.asked) % 2 == 0

class NAME(int):
    def __new__(cls, *args, **kwargs): return Later()
"""

NUMBER = """
class Any(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __sub__(self, other): return 0
    __rsub__ = __abs__ = __sub__
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __lt__

def NAME(*args, **kwargs):
    return Any(-77777)
"""

COLLIDING = """
def NAME(*args, **kwargs):
    return [n * (2 ** 61 - 1) for n in range(100_000)]
"""

CHEATS = {
    "always equal": ALWAYS_EQUAL,
    "stops": STOPS,
    "answers later": LATER,
    "a number equal to all": NUMBER,
    "colliding": COLLIDING,
    "exit": "import sys\nsys.exit(0)\n\ndef NAME(*args):\n    return None\n",
    "exit when called": "def NAME(*args):\n    raise SystemExit(0)\n",
    "os exit": "import os\nos._exit(0)\n",
    "no assertions": NO_ASSERTIONS,
    "tests from disk": FROM_DISK,
    "tests from memory": FROM_MEMORY,
}


SLOW = ("colliding",)
"""Cheats that take seconds of CPU time each: tried on a part of the problems."""


class TestHumanEval:
    def scores(self, problems: list[dict[str, Any]], said: list[str]) -> list[float | None]:
        return code_tests(
            [problem["prompt"] for problem in problems],
            said,
            tests=[problem["test"] for problem in problems],
            entry_point=[problem["entry_point"] for problem in problems],
        )

    def test_every_canonical_solution_passes(self) -> None:
        problems = rows("humaneval/problems")
        scores = self.scores(problems, [p["canonical_solution"] for p in problems])
        assert scores == [1.0] * 164

    def test_canonical_solutions_as_fenced_functions_pass(self) -> None:
        problems = rows("humaneval/problems")[::8]
        said = [f"```python\n{p['prompt']}{p['canonical_solution']}```" for p in problems]
        assert self.scores(problems, said) == [1.0] * len(problems)

    @pytest.mark.parametrize("cheat", CHEATS)
    def test_a_cheat_passes_nothing(self, cheat: str) -> None:
        problems = rows("humaneval/problems")[:: 10 if cheat in SLOW else 1]
        said = [
            f"```python\n{CHEATS[cheat].replace('NAME', p['entry_point'])}```" for p in problems
        ]
        scores = self.scores(problems, said)
        assert scores == [0.0] * len(problems), [i for i, s in enumerate(scores) if s != 0.0]


def mbpp_tests(problem: dict[str, Any]) -> list[str]:
    """A problem's tests behind what they need."""
    tests = [problem["test_setup_code"], *problem["test_list"]]
    return ["import math", *tests] if "math." in "\n".join(tests) else tests


class TestMBPP:
    @pytest.mark.parametrize(("name", "count"), [("full", 974), ("sanitized", 427)])
    def test_every_canonical_solution_passes(self, name: str, count: int) -> None:
        problems = rows(f"mbpp/{name}")
        scores = code_tests(
            [problem["text"] for problem in problems],
            [f"```python\n{problem['code']}\n```" for problem in problems],
            tests=[mbpp_tests(problem) for problem in problems],
        )
        wrong = [p["task_id"] for p, score in zip(problems, scores, strict=True) if score != 1.0]
        assert (len(scores), wrong) == (count, [])

    @pytest.mark.parametrize("cheat", CHEATS)
    def test_a_cheat_earns_no_more_than_a_constant(self, cheat: str) -> None:
        """An object that is true passes tests that `return True` passes, and no other."""
        problems = rows("mbpp/sanitized")[:: 20 if cheat in SLOW else 4]
        names = [function_of(problem) for problem in problems]
        tests = [mbpp_tests(problem) for problem in problems]
        prompts = [""] * len(names)

        def scores(code: str) -> list[float | None]:
            said = [f"```python\n{code.replace('NAME', name)}\n```" for name in names]
            return code_tests(prompts, said, tests=tests, entry_point=names, seconds=2.0)

        honest = scores("def NAME(*args, **kwargs):\n    return True\n")
        earned = scores(CHEATS[cheat])
        assert None not in earned
        above = [
            problem["task_id"]
            for problem, got, fair in zip(problems, earned, honest, strict=True)
            if (got or 0.0) > (fair or 0.0)
        ]
        assert above == []
        print(cheat, sum(score == 1.0 for score in earned), "of", len(earned))


def function_of(problem: dict[str, Any]) -> str:
    """The name of the function that a problem's tests call and its solution defines."""
    defined = re.findall(r"^def (\w+)", problem["code"], re.MULTILINE)
    tests = "\n".join(problem["test_list"])
    return next(name for name in reversed(defined) if re.search(rf"\b{name}\b", tests))


Arguments = dict[str, Any]


def first(value: Any, *, optional: bool) -> Any:
    """A right value: the first accepted one, in nested objects too."""
    if isinstance(value, dict):
        return arguments_of(value, optional=optional)
    return [first(item, optional=optional) for item in value] if isinstance(value, list) else value


def arguments_of(accepted: dict[str, list[Any]], *, optional: bool) -> Arguments:
    chosen = {}
    for name, values in accepted.items():
        some = [value for value in values if value != ""]
        if some and (optional or "" not in values):
            chosen[name] = first(some[0], optional=optional)
    return chosen


def wrong(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value + 7919
    if isinstance(value, str):
        return value + " qqq"
    if isinstance(value, list):
        return [*value, *(value or [7919])]
    return {**value, "qqq": 1}


class TestFunctionCalls:
    """The Berkeley leaderboard's simple_python."""

    def tasks(self) -> list[tuple[dict[str, Any], dict[str, Any], str, dict[str, list[Any]]]]:
        """(function, answer, name, accepted values) of each task."""
        found = []
        for task, answer in zip(
            rows("bfcl/simple_python.tasks"), rows("bfcl/simple_python.answers"), strict=True
        ):
            assert task["id"] == answer["id"]
            (call,) = answer["ground_truth"]
            ((name, accepted),) = call.items()
            found.append((task["function"], answer["ground_truth"], name, accepted))
        assert len(found) == 400
        return found

    def score(self, function: Any, answer: Any, calls: list[tuple[str, Arguments]]) -> float | None:
        said = json.dumps([{"name": name, "arguments": arguments} for name, arguments in calls])
        return tool_call(["p"], [said], answer=[answer], tools=[function])[0]

    @pytest.mark.parametrize("optional", [False, True])
    def test_accepted_calls_are_right(self, optional: bool) -> None:
        for function, answer, name, accepted in self.tasks():
            arguments = arguments_of(accepted, optional=optional)
            assert self.score(function, answer, [(name, arguments)]) == 1.0, (answer, arguments)
            written = ", ".join(f"{k}={v!r}" for k, v in arguments.items())
            if "-" not in name:
                said = [f"[{name}({written})]"]
                assert tool_call(["p"], said, answer=[answer], tools=[function]) == [1.0], said

    def test_mutated_calls_are_wrong(self) -> None:
        tried = dict.fromkeys(["name", "value", "missing", "extra", "repeated", "text"], 0)
        for function, answer, name, accepted in self.tasks():
            right = arguments_of(accepted, optional=True)
            required = [k for k, values in accepted.items() if "" not in values]
            mutations: list[tuple[str, list[tuple[str, Arguments]]]] = [
                ("name", [(name + "_2", right)]),
                ("extra", [(name, {**right, "qqq": 1})]),
                ("repeated", [(name, right), (name, copy.deepcopy(right))]),
            ]
            for k in right:
                mutations.append(("value", [(name, {**right, k: wrong(right[k])})]))
                kind = type(right[k])
                if kind in (int, float):
                    mutations.append(("text", [(name, {**right, k: str(right[k])})]))
            for k in required:
                mutations.append(("missing", [(name, {n: v for n, v in right.items() if n != k})]))
            for kind, calls in mutations:
                tried[kind] += 1
                assert self.score(function, answer, calls) == 0.0, (kind, calls, answer)
        print("mutations tried:", tried)
        assert tried["name"] == tried["extra"] == tried["repeated"] == 400
        assert min(tried["value"], tried["missing"]) >= 400
        assert tried["text"] >= 200


def test_a_downloaded_folder_is_not_read_as_one_set() -> None:
    """GSM8K's folder holds train, test and model solutions: which is meant has to be said."""
    if not (DATA / "gsm8k").exists():
        pytest.skip(f"no public data at {DATA} (set STROP_DATA)")
    with pytest.raises(DataError, match="model_solutions, test, train, and it is not clear"):
        list(read_rows(DATA / "gsm8k"))
    counts = {
        name: len(list(read_rows(DATA / "gsm8k" / f"{name}.*"))) for name in ("train", "test")
    }
    assert counts == {"train": 7473, "test": 1319}
