"""Code that is right because it passes tests, run where it can do no harm."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

from strop.sandbox.confine.jail import MOST_WAITING, Limits
from strop.sandbox.tiers import strongest
from strop.sandbox.workers import Reply, Workers
from strop.text.parse import plain, spoken
from strop.types import Text

_FENCE = re.compile(r"^[ \t]*```[^\n]*(?:\n|\Z)", re.MULTILINE)

_TOKEN = re.compile(
    r"""
    (?P<fence> ^[ \t]*```[^\n]*(?:\n|\Z) )
    | \#[^\n]*                                                   # a comment
    | (?P<quotes> \"{3}|'{3} ) (?:\\.|(?!(?P=quotes)).)* (?P=quotes)   # a text over many lines
    | \"{3} | '{3}                                               # one without an end
    | (?P<quote> ["'] ) (?:\\.|(?!(?P=quote))[^\n])*             # a text on one line
    | \\.
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
"""What may hold three backticks without being the end of a block of Python, and that end."""

WALL_FACTOR = 3.0
"""Seconds of wall clock for each second of CPU time, where `wall_seconds` says nothing."""

REFEREE_SECONDS = 30.0
"""How much longer than its candidate a referee may take before nothing can be said."""

Tests = str | Sequence[str] | Sequence[dict[str, Any]]


def code_tests(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    tests: Sequence[Tests | None],
    entry_point: Sequence[str | None] | str | None = None,
    partial: bool = False,
    seconds: float = 10.0,
    wall_seconds: float | None = None,
    memory_mb: int = 512,
    **columns: object,
) -> list[float | None]:
    """1.0 where the completion's code passes its tests, else 0.0; with `partial` the share passed.

    `tests` are Python text with assertions, HumanEval's `check(candidate)` (with `entry_point`), a
    list of assertions (MBPP), or a list of `{"input": ..., "output": ...}` for whole programs. The
    code is the completion's last fenced block, else all of it; where the prompt itself is Python
    (HumanEval) the code continues it. It runs in the strongest sandbox tier of this machine and
    never sees a test or an expected value: the tests call it from another process, and only data it
    returns is compared. Arguments changed in place are not seen by the tests. Code that is only
    thought (in `<think>`) does not count.

    `seconds` is CPU time, `wall_seconds` (default: three times as much) wall clock.

    `None` where the tests themselves are broken or nobody but the candidate could say whether they
    hold. Raises `SandboxError` where no tier holds.
    """
    wall = wall_seconds or WALL_FACTOR * seconds
    limits = asdict(Limits(seconds=seconds, wall=wall, memory=memory_mb * 2**20))
    points: Sequence[str | None] = (
        [entry_point] * len(tests)
        if entry_point is None or isinstance(entry_point, str)
        else entry_point
    )
    requests: list[dict[str, Any]] = []
    for prompt, completion, suite, point in zip(prompts, completions, tests, points, strict=True):
        asked = plain(prompt)
        code = program_of(asked, spoken(completion))
        requests.append({"code": code, "tests": _listed(suite), "entry_point": point,
                         "prompt": asked, "partial": partial, "limits": limits})  # fmt: skip
    most = max((len(r["tests"]) for r in requests if _is_programs(r["tests"])), default=1)
    replies = _referees(strongest()).ask(requests, MOST_WAITING * wall * most + REFEREE_SECONDS)
    return [_score(reply) for reply in replies]


def program_of(prompt: str, completion: str) -> str:
    """The Python that a completion means: fenced or bare, continuing the prompt where that is
    code."""
    code = _last_block(completion)
    return f"{prompt.rstrip()}\n{code}" if _is_python(prompt) else code


def _last_block(completion: str) -> str:
    """The last fenced block; all of a completion without one. A fence inside a docstring ends
    nothing."""
    block, at = completion, 0
    while opening := _FENCE.search(completion, at):
        tokens = _TOKEN.finditer(completion, opening.end())
        closing = next((token for token in tokens if token["fence"]), None)
        end, at = closing.span() if closing else (len(completion), len(completion))
        block = completion[opening.end() : end]
    return block


def _is_python(text: str) -> bool:
    """Whether a text defines a function: prose may be Python by accident, but not that."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body)


def _listed(suite: Tests | None) -> str | list[Any]:
    """Tests as text or a list, also where a column holds the list as JSON text."""
    if not isinstance(suite, str):
        return list(suite or [])
    try:
        listed = json.loads(suite) if suite.lstrip().startswith("[") else suite
    except (ValueError, RecursionError):
        return suite
    return listed if isinstance(listed, list) else suite


def _is_programs(tests: str | list[Any]) -> bool:
    return isinstance(tests, list) and bool(tests) and isinstance(tests[0], dict)


@cache
def _referees(tier: str) -> Workers:
    return Workers([sys.executable, "-m", "strop.sandbox.referee", tier])


def _score(reply: Reply) -> float | None:
    finding = reply.answer
    if reply.failed is not None or finding["unjudged"] is not None:
        return None
    return float(finding["passed"] / finding["total"])
