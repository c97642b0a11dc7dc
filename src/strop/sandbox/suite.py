"""Tests as people write them, turned into claims that are checked one by one.

Trusted code: it runs in the referee, never beside a candidate.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strop.sandbox.codec import NotPlainError

CLAIM = "__claim__"
FILE = "tests.py"
LONGEST_SAID = 500
"""Characters of a message that are kept: a candidate may have chosen it."""


class SuiteError(Exception):
    """The tests themselves cannot be run: nothing can be said about any candidate."""


class FailedError(Exception):
    """A claim did not hold, and one is enough."""


@dataclass(frozen=True, slots=True)
class Program:
    """A script's input and what it has to print: `Program("1 2\\n", "3\\n")`."""

    given: str
    expected: str


@dataclass(slots=True)
class Ledger:
    """Counts claims. With `partial` every claim is tried, else the first that fails is the last."""

    partial: bool
    passed: int = 0
    total: int = 0
    said: str = ""

    def claim(self, holds: Callable[[], object]) -> None:
        """Evaluate an assertion; an exception inside is the candidate's failure, except for
        arguments that could not be sent to it."""
        self.total += 1
        try:
            if holds():
                self.passed += 1
                return
            self.say("an assertion does not hold")
        except NotPlainError as error:
            raise SuiteError(f"the tests pass something that cannot be sent: {error}") from None
        except Exception as error:  # noqa: BLE001 - a candidate's answer may break any expression
            self.say(f"{type(error).__name__}: {error}")
        if not self.partial:
            raise FailedError(self.said)

    def say(self, what: str) -> None:
        """Keep the first reason."""
        self.said = self.said or what[:LONGEST_SAID]


class _Claims(ast.NodeTransformer):
    """`assert x` becomes `__claim__(lambda: x)`."""

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        nothing = ast.arguments([], [], None, [], [], None, [])
        call = ast.Call(ast.Name(CLAIM, ast.Load()), [ast.Lambda(nothing, node.test)], [])
        return ast.copy_location(ast.Expr(call), node)


def compiled(tests: str) -> tuple[Any, ast.Module]:
    """Code object and tree of assertions. Raises `SuiteError` where they are no Python."""
    try:
        tree = ast.parse(tests, FILE)
        claims = ast.fix_missing_locations(_Claims().visit(ast.parse(tests, FILE)))
        return compile(claims, FILE, "exec"), tree
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SuiteError(f"the tests are no Python: {error}") from None


def called(tree: ast.Module) -> set[str]:
    """Names that the tests use and neither define nor import: the candidate's functions."""
    used = {n.id for n in _nodes(tree, ast.Name) if isinstance(n.ctx, ast.Load)}
    bound = {n.id for n in _nodes(tree, ast.Name) if not isinstance(n.ctx, ast.Load)}
    bound |= {n.arg for n in _nodes(tree, ast.arg)}
    bound |= {n.name for n in _nodes(tree, ast.FunctionDef)}
    bound |= {n.name for n in _nodes(tree, ast.ClassDef)}
    bound |= {n.name for n in _nodes(tree, ast.ExceptHandler) if n.name}
    bound |= {(n.asname or n.name).split(".")[0] for n in _nodes(tree, ast.alias)}
    return used - bound - vars(builtins).keys()


def helpers(prompt: str, entry_point: str | None) -> dict[str, object]:
    """What a prompt that is Python defines besides the function asked for: the tests may use it.

    They come from the task, so a candidate cannot replace them.
    """
    try:
        tree = ast.parse(prompt)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    kept = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign)
    tree.body = [
        node
        for node in tree.body
        if isinstance(node, kept) and getattr(node, "name", None) != entry_point
    ]
    space: dict[str, object] = {}
    try:
        exec(compile(tree, "prompt.py", "exec"), space)
    except Exception as error:  # noqa: BLE001 - the task's own code may raise anything
        raise SuiteError(f"the prompt's own code fails: {error}") from None
    return {name: value for name, value in space.items() if name != "__builtins__"}


def has_check(tree: ast.Module) -> bool:
    """HumanEval's form: a function `check(candidate)`."""
    return any(isinstance(n, ast.FunctionDef) and n.name == "check" for n in tree.body)


def programs(tests: Sequence[Mapping[str, Any]]) -> list[Program]:
    """Pairs of input and output. Raises `SuiteError` for anything else."""
    try:
        return [Program(str(test["input"]), str(test["output"])) for test in tests]
    except (KeyError, TypeError):
        raise SuiteError('a test is {"input": ..., "output": ...} or an assertion') from None


def same_output(printed: str, expected: str) -> bool:
    """Equal line by line, spaces at the ends and empty last lines aside."""
    left, right = (
        [line.rstrip() for line in text.rstrip().splitlines()] for text in (printed, expected)
    )
    return left == right


def _nodes(tree: ast.AST, kind: type[Any]) -> Iterator[Any]:
    return (node for node in ast.walk(tree) if isinstance(node, kind))
