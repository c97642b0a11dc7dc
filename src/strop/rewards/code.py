"""Scores code by its tests, in a sandbox."""

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
"""Tokens of Python that may contain three backticks, and the fence that ends a block."""

WALL_FACTOR = 3.0
"""Default seconds of wall clock per second of CPU time."""

REFEREE_SECONDS = 30.0
"""A referee may take this much longer than its candidate; after that the task is unscored."""

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
    code is the completion's last fenced block, else all of it; if the prompt itself is Python
    (HumanEval), the code continues it. It runs in the strongest sandbox tier of this machine and
    never sees a test or an expected value: the tests call it from another process and compare only
    the data it returns. The tests do not see arguments that the code changes in place. Code inside
    `<think>` does not count.

    `seconds` is CPU time, `wall_seconds` (default: three times as much) wall clock.

    `None` if the tests themselves are broken, or if only the candidate's own code could decide
    whether they hold. Raises `SandboxError` if no tier works.
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
    """The Python in a completion, fenced or bare; it continues the prompt if that is code."""
    code = _last_block(completion)
    return f"{prompt.rstrip()}\n{code}" if _is_python(prompt) else code


def _last_block(completion: str) -> str:
    """The last fenced block, or the whole completion. A fence inside a docstring ends no block."""
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
    """Tests as text or a list; a column may hold the list as JSON text."""
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
