"""Counts the claims that tests would still have made if they had not ended early.

A candidate that ends the tests after three of a hundred right answers gets three of a hundred.
Unreached claims are counted in the text of the tests; in a loop they count once for every remaining
pass.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

FILE = "tests.py"
LAZY = (zip, enumerate, map, filter)


class Loops:
    """The passes of loops, by line: how many were begun, and how many there are in all."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}
        self._length: dict[int, int] = {}

    def follow(self, line: int, items: Iterable[Any]) -> Iterator[Any]:
        """The items, counted."""
        self._begun[line], self._length[line] = 0, length_of(items)
        for item in items:
            self._begun[line] += 1
            yield item

    def left(self, line: int) -> int:
        return max(0, self._length.get(line, 0) - self._begun.get(line, 0))


def length_of(items: Any) -> int:
    """The number of items, if it is known without iterating; else 0."""
    if type(items) in LAZY:
        parts = [part for part in items.__reduce__()[1] if hasattr(type(part), "__iter__")]
        return min(map(length_of, parts), default=0)
    if type(items).__module__ not in ("builtins", "collections"):
        return 0
    return max(0, operator.length_hint(items, 0))


class Unreached:
    """Counts the claims of parsed tests."""

    def __init__(self, tree: ast.Module, loops: Loops) -> None:
        self._tree, self._loops = tree, loops
        self._functions = {
            node.name: node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }

    def all(self, called: Iterable[str] = ()) -> int:
        """The number of claims in the whole text, and in functions that are called after it."""
        bodies = [self._functions[name].body for name in called if name in self._functions]
        return sum(self._of(body, {}) for body in (self._tree.body, *bodies))

    def after(self, trace: TracebackType | None) -> int:
        """The number of claims after the lines at which an exception left the tests."""
        left = 0
        while trace is not None:
            frame = trace.tb_frame
            if frame.f_code.co_filename == FILE:
                body = self._body_of(frame.f_code.co_name)
                left += self._behind(body, trace.tb_lineno, {**frame.f_globals, **frame.f_locals})
            trace = trace.tb_next
        return left

    def _body_of(self, name: str) -> list[ast.stmt]:
        if name == "<module>":
            return self._tree.body
        return self._functions[name].body if name in self._functions else []

    def _behind(self, body: list[ast.stmt], line: int, known: Mapping[str, Any]) -> int:
        for position, node in enumerate(body):
            if not node.lineno <= line <= (node.end_lineno or node.lineno):
                continue
            left = self._of(body[position + 1 :], known)
            if isinstance(node, ast.For):
                left += self._loops.left(node.lineno) * self._of(node.body, known)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                return left
            return left + sum(self._behind(inner, line, known) for inner in _bodies(node))
        return 0

    def _of(self, body: Iterable[ast.stmt], known: Mapping[str, Any], depth: int = 0) -> int:
        return sum(self._one(node, known, depth) for node in body)

    def _one(self, node: ast.stmt, known: Mapping[str, Any], depth: int) -> int:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return 0
        if isinstance(node, ast.Assert):
            return 1
        counts = [self._of(body, known, depth) for body in _bodies(node)]
        if isinstance(node, ast.For):
            return counts[0] * max(1, _passes(node.iter, known)) + sum(counts[1:])
        if isinstance(node, ast.If | ast.Match):
            return max(counts, default=0)
        if counts:
            return sum(counts)
        return self._in_calls(node, known, depth)

    def _in_calls(self, node: ast.stmt, known: Mapping[str, Any], depth: int) -> int:
        """Claims of the tests' own functions that a statement calls."""
        if depth > len(self._functions):
            return 0
        called = [
            self._functions[call.func.id].body
            for call in ast.walk(node)
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
            and call.func.id in self._functions
        ]  # fmt: skip
        return sum(self._of(body, known, depth + 1) for body in called)


def _bodies(node: ast.stmt) -> list[list[ast.stmt]]:
    """The blocks inside a statement, handlers of exceptions aside."""
    blocks = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
    blocks += [case.body for case in getattr(node, "cases", [])]
    return [block for block in blocks if block]


def _passes(node: ast.expr, known: Mapping[str, Any]) -> int:
    """How often a loop over an expression runs, if the expression shows it; else 0."""
    match node:
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            return len(items)
        case ast.Dict(keys=keys):
            return len(keys)
        case ast.Name(id=name):
            return length_of(known.get(name, ()))
        case ast.Call(func=ast.Name(id="range"), args=args) if _are_numbers(args):
            return len(range(*(arg.value for arg in args)))  # type: ignore[attr-defined]
        case ast.Call(func=ast.Name(id="zip"), args=args):
            return min((_passes(arg, known) for arg in args), default=0)
        case ast.Call(func=ast.Name(id="enumerate" | "sorted" | "list"), args=[arg, *_]):
            return _passes(arg, known)
        case ast.Call(func=ast.Attribute(value=inner, attr="items" | "keys" | "values"), args=[]):
            return _passes(inner, known)
    return 0


def _are_numbers(args: list[ast.expr]) -> bool:
    return bool(args) and all(
        isinstance(arg, ast.Constant) and isinstance(arg.value, int) for arg in args
    )
