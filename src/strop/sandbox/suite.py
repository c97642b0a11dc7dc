"""Turns tests as people write them into claims that are checked one by one.

Trusted code: it runs in the referee, never beside a candidate.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from strop.errors import SandboxError
from strop.sandbox.suites.names import nodes
from strop.sandbox.suites.unreached import FILE, Loops
from strop.sandbox.values.remote import UnjudgedError

CLAIM, SAME, IS_INSTANCE, TYPE, STOPPED = (
    "__claim__", "__same__", "__is_instance__", "__type__", "__stopped__",
)  # fmt: skip
"""Names under which the tests find the ledger and the replacements of a few built-ins."""

LONGEST_SAID = 500
"""Characters of a message that are kept, because a candidate may have chosen it."""


class SuiteError(UnjudgedError):
    """The tests themselves cannot be run, so no candidate can be judged."""


class FailedError(Exception):
    """A claim failed, and the tests stop at the first failure."""


class TimeUpError(BaseException):
    """The tests take too long; no `except Exception` of theirs may stop it."""


@dataclass(frozen=True, slots=True)
class ProgramCase:
    """A script's input and what it has to print: `ProgramCase("1 2\\n", "3\\n")`."""

    given: str
    expected: str


@dataclass(slots=True)
class Ledger:
    """Counts claims. With `partial` every claim is tried; else the tests stop at the first failure.

    The tests use it as a context: `assert f(1) == 1` becomes `with ledger: ledger.holds(f(1) ==
    1)`.
    """

    partial: bool
    passed: int = 0
    total: int = 0
    said: str = ""
    unjudged: str | None = None
    loops: Loops = field(default_factory=Loops)

    def __enter__(self) -> None:
        self.total += 1

    def holds(self, value: object) -> None:
        """The value of an assertion."""
        if value:
            self.passed += 1
        else:
            self._fail("an assertion does not hold")

    def __exit__(
        self, kind: object, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """An exception inside is the candidate's failure, because its answer may break any
        expression."""
        if error is None:
            return False
        if isinstance(error, FailedError | TimeUpError | UnjudgedError | SandboxError):
            return False
        if isinstance(error, KeyboardInterrupt | GeneratorExit):
            return False
        self._fail(f"{type(error).__name__}: {error}")
        return True

    def _fail(self, why: str) -> None:
        self.say(why)
        if not self.partial:
            raise FailedError(self.said)

    def say(self, what: str) -> None:
        """Keep the first reason."""
        self.said = self.said or what[:LONGEST_SAID]


class _Claims(ast.NodeTransformer):
    """Turns `assert x` into a claim, and checks of an object's type or identity into calls, because
    the object may be a proxy of the candidate's."""

    def __init__(self, partial: bool) -> None:
        self._partial = partial

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        self.generic_visit(node)
        holds = ast.Attribute(ast.Name(CLAIM, ast.Load()), "holds", ast.Load())
        claim = ast.Expr(ast.Call(holds, [node.test], []))
        context = ast.withitem(ast.Name(CLAIM, ast.Load()))
        return ast.copy_location(ast.With([context], [claim]), node)

    def visit_For(self, node: ast.For) -> ast.stmt:
        self.generic_visit(node)
        if self._partial:
            loops = ast.Attribute(ast.Name(CLAIM, ast.Load()), "loops", ast.Load())
            follow = ast.Attribute(loops, "follow", ast.Load())
            call = ast.Call(follow, [ast.Constant(node.lineno), node.iter], [])
            node.iter = ast.copy_location(call, node.iter)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        match node:
            case ast.Compare(left, [ast.Is() | ast.IsNot() as how], [right]) if not isinstance(
                right, ast.Constant
            ):
                call: ast.expr = ast.Call(ast.Name(SAME, ast.Load()), [left, right], [])
                if isinstance(how, ast.IsNot):
                    call = ast.UnaryOp(ast.Not(), call)
                return ast.copy_location(call, node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        match node.func:
            case ast.Name(id="isinstance"):
                node.func.id = IS_INSTANCE
            case ast.Name(id="type") if len(node.args) == 1:
                node.func.id = TYPE
        node.args = [_also_stopped(arg) for arg in node.args]
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        self.generic_visit(node)
        if node.attr == "__class__" and isinstance(node.ctx, ast.Load):
            call = ast.Call(ast.Name(TYPE, ast.Load()), [node.value], [])
            return ast.copy_location(call, node)
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.ExceptHandler:
        self.generic_visit(node)
        if isinstance(node.type, ast.Tuple):
            if any(_is_stop(kind) for kind in node.type.elts):
                node.type.elts.append(ast.copy_location(_stopped(), node.type))
        elif node.type is not None:
            node.type = _also_stopped(node.type)
        return node


def _is_stop(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "StopIteration"


def _stopped() -> ast.expr:
    return ast.Name(STOPPED, ast.Load())


def _also_stopped(node: ast.expr) -> ast.expr:
    """Make `except StopIteration` also catch the `StoppedError` that replaces a candidate's."""
    if not _is_stop(node):
        return node
    return ast.copy_location(ast.Tuple([node, _stopped()], ast.Load()), node)


def parsed(tests: str) -> ast.Module:
    """The syntax tree of tests. Raises `SuiteError` if they are not Python."""
    try:
        return ast.parse(tests, FILE)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SuiteError(f"the tests are no Python: {error}") from None


def compiled(tests: str, partial: bool) -> Any:
    """The code of tests whose assertions are claims. Raises `SuiteError`."""
    try:
        tree = ast.fix_missing_locations(_Claims(partial).visit(parsed(tests)))
        return compile(tree, FILE, "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SuiteError(f"the tests are no Python: {error}") from None


def has_check(tree: ast.Module) -> bool:
    """Whether the tests have HumanEval's form: a function `check(candidate)`."""
    return any(isinstance(n, ast.FunctionDef) and n.name == "check" for n in tree.body)


def claims_something(tree: ast.Module) -> bool:
    return any(True for _ in nodes(tree, ast.Assert))


def programs(tests: Sequence[Mapping[str, Any]]) -> list[ProgramCase]:
    """Pairs of input and output. Raises `SuiteError` for anything else."""
    try:
        return [ProgramCase(str(test["input"]), str(test["output"])) for test in tests]
    except (KeyError, TypeError):
        raise SuiteError('a test is {"input": ..., "output": ...} or an assertion') from None


def same_output(printed: str, expected: str) -> bool:
    """Whether two outputs are equal line by line, ignoring spaces at the ends of lines and empty
    last lines. Only a newline ends a line, no other line end of Unicode."""
    left, right = (
        [line.rstrip(" \t\r") for line in text.rstrip(" \t\r\n").split("\n")]
        for text in (printed, expected)
    )
    return left == right
