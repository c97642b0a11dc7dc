"""Finds out who defines each name in the tests: the tests, Python's library, the prompt or the
candidate.

It reads only the text of tests and prompt, so no candidate can influence it. A candidate must not
replace names that judge it (`len`, `math.isclose`, a helper of the prompt), and has to define the
names that the prompt asks for.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from strop.sandbox.values.remote import REVEALING

MODULES = {
    **{name: name for name in (
        "math", "cmath", "re", "sys", "itertools", "functools", "collections", "operator", "string",
        "random", "statistics", "heapq", "bisect", "copy", "json", "datetime", "decimal",
        "fractions", "typing", "time", "numpy",
    )},
    "np": "numpy",
}  # fmt: skip
"""Modules that tests may use without importing them, if the prompt or the code imports them."""

WELL_KNOWN = {
    **dict.fromkeys(("isclose", "sqrt", "floor", "ceil", "pi", "inf", "nan", "isnan", "isinf",
                     "gcd", "factorial", "log", "log2", "log10", "exp", "sin", "cos", "tan",
                     "radians", "degrees", "hypot", "prod", "comb", "perm", "fsum"), "math"),
    **dict.fromkeys(("Counter", "deque", "defaultdict", "OrderedDict", "namedtuple"),
                    "collections"),
    **dict.fromkeys(("permutations", "combinations", "product", "chain", "islice", "accumulate",
                     "zip_longest", "takewhile", "groupby"), "itertools"),
    **dict.fromkeys(("reduce", "partial"), "functools"),
    **dict.fromkeys(("Decimal",), "decimal"),
    **dict.fromkeys(("Fraction",), "fractions"),
    **dict.fromkeys(("date", "timedelta"), "datetime"),
    **dict.fromkeys(("deepcopy",), "copy"),
}  # fmt: skip
"""Library functions that tests use without importing them, and their modules."""


CAPITAL = re.compile(r"[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*|[A-Z]")
"""Names that look like a class's."""


class UnclearError(Exception):
    """The tests do not say which function is under test."""


@dataclass(frozen=True, slots=True)
class Names:
    """Who defines the names that the tests use but do not define."""

    candidate: set[str] = field(default_factory=set)
    """Functions, classes and constants that the candidate has to define."""
    classes: set[str] = field(default_factory=set)
    """Those of `candidate` that the tests call to make objects."""
    mixed: set[str] = field(default_factory=set)
    """Those of `candidate` that may be a class, or a function with a class-like name."""
    errors: set[str] = field(default_factory=set)
    """Those of `candidate` that the tests catch as exceptions."""
    helpers: set[str] = field(default_factory=set)
    """Functions and constants that the prompt defines and that are not under test."""
    library: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Library names: module and name in it ("" for the module itself)."""


def names_of(tests: ast.Module, prompt: str, entry_point: str | None) -> Names:
    """Sort the names of the tests. Raises `UnclearError` if several functions could be under
    test."""
    given = _parsed(prompt)
    free = _free(tests) | ({entry_point} if entry_point else set())
    asked = {entry_point} if entry_point else _tested_in_prompt(given, free, tests)
    library = {name: place for name, place in _imports(given).items() if name in free - asked}
    helpers = (_functions(given).keys() | _constants(given)) & free - asked - library.keys()
    left = free - helpers - library.keys()
    usual = {name for name in left - asked if _is_library_name(name, tests)}
    if not left - usual:
        usual -= _under_test(usual, tests, prompt)
    library |= {n: _library_place(n) for n in usual if n in WELL_KNOWN or n in MODULES}
    candidate = left - usual
    errors = _caught(tests) & candidate
    classes, mixed = _classes(candidate - errors, tests, given, prompt, candidate)
    return Names(candidate, classes, mixed, errors, helpers, library)


def _parsed(prompt: str) -> ast.Module:
    """The syntax tree of the prompt; an empty module if it is not Python."""
    try:
        return ast.parse(prompt)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])


def _free(tests: ast.Module) -> set[str]:
    """Names that the tests use and neither define nor import; built-in ones only where called."""
    used = {n.id for n in nodes(tests, ast.Name) if isinstance(n.ctx, ast.Load)}
    bound = {n.id for n in nodes(tests, ast.Name) if not isinstance(n.ctx, ast.Load)}
    bound |= {n.arg for n in nodes(tests, ast.arg)}
    bound |= {n.name for n in nodes(tests, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)}
    bound |= {n.name for n in nodes(tests, ast.ExceptHandler) if n.name}
    bound |= {n.name for n in nodes(tests, ast.MatchAs, ast.MatchStar) if n.name}
    bound |= {(n.asname or n.name).split(".")[0] for n in nodes(tests, ast.alias)}
    plain = vars(builtins).keys() - {call.func.id for call in _calls(tests)}
    return used - bound - plain - {"__name__", "__file__", "__builtins__"}


def _calls(tree: ast.AST) -> Iterator[Any]:
    """Calls of plain names."""
    return (n for n in nodes(tree, ast.Call) if isinstance(n.func, ast.Name))


def _is_library_name(name: str, tests: ast.Module) -> bool:
    """Whether a name means the library's, unless the prompt defines it."""
    if name in MODULES:
        return any(
            isinstance(n.value, ast.Name) and n.value.id == name
            for n in nodes(tests, ast.Attribute)
        )
    return name in WELL_KNOWN or hasattr(builtins, name)


def _library_place(name: str) -> tuple[str, str]:
    return (MODULES[name], "") if name in MODULES else (WELL_KNOWN[name], name)


def _under_test(usual: set[str], tests: ast.Module, prompt: str) -> set[str]:
    """The library or built-in function under test, for tests that call only such functions: the
    only one, the one that the prompt names, or the innermost one."""
    called = {call.func.id for call in _calls(tests)} & usual
    if len(called) < 2:
        return called
    named = {name for name in called if re.search(rf"\b{name}\b", prompt)}
    if len(named) == 1:
        return named
    inner = called - {
        call.func.id for call in _calls(tests)
        if any(c.func.id in called - {call.func.id} for arg in call.args for c in _calls(arg))
    }  # fmt: skip
    everywhere = {
        name for name in inner
        if all(name in {c.func.id for c in _calls(n)} for n in nodes(tests, ast.Assert))
    }  # fmt: skip
    if len(everywhere) != 1:
        listed = ", ".join(sorted(called)) or "nothing"
        raise UnclearError(f"the tests call {listed}: name the function that is under test "
                           "as entry_point")  # fmt: skip
    return everywhere


# --- definitions and tasks in a prompt that is Python ---------------------------------------------


def _functions(given: ast.Module) -> dict[str, Any]:
    return {n.name: n for n in given.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}


def _constants(given: ast.Module) -> set[str]:
    targets = [t for n in given.body if isinstance(n, ast.Assign) for t in n.targets]
    targets += [n.target for n in given.body if isinstance(n, ast.AnnAssign) and n.value]
    return {t.id for t in targets if isinstance(t, ast.Name)}


def _imports(given: ast.Module) -> dict[str, tuple[str, str]]:
    """The prompt's imports from the modules that tests may use."""
    found: dict[str, tuple[str, str]] = {}
    for node in given.body:
        if isinstance(node, ast.Import):
            found |= {(a.asname or a.name): (a.name, "") for a in node.names if a.name in MODULES}
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            found |= {(a.asname or a.name): (node.module, a.name) for a in node.names}
    return found


def _tested_in_prompt(given: ast.Module, free: set[str], tests: ast.Module) -> set[str]:
    """Functions of the prompt that are under test, if there is no entry point. They are the
    functions without a body. If there are none, and the prompt defines everything that the tests
    call, they are the last function that the tests call and all whose results the tests compare."""
    functions = {name: node for name, node in _functions(given).items() if name in free}
    stubs = {name for name, node in functions.items() if _is_stub(node)}
    known = functions.keys() | _constants(given) | _imports(given).keys()
    lacking = {n for n in free - known if not _is_library_name(n, tests)}
    lacking -= {n.name for n in given.body if isinstance(n, ast.ClassDef)}
    if stubs or lacking or not functions:
        return stubs
    sides = [s for n in nodes(tests, ast.Compare) for s in (n.left, *n.comparators)]
    calls = [s.func for s in sides if isinstance(s, ast.Call)]
    compared = {f.id for f in calls if isinstance(f, ast.Name)}
    return {list(functions)[-1]} | (compared & functions.keys())


def _is_stub(function: Any) -> bool:
    """Whether a function's body is only a docstring, `...`, `pass` or a raised
    NotImplementedError."""
    return all(
        isinstance(node, ast.Pass)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Raise) and "NotImplemented" in ast.dump(node))
        for node in function.body
    )


# --- the candidate's classes and exceptions -------------------------------------------------------


def _caught(tests: ast.Module) -> set[str]:
    """Names in `except`, and in calls such as `raises` and `assertRaises`."""
    places: list[ast.AST] = [n.type for n in nodes(tests, ast.ExceptHandler) if n.type]
    for call in nodes(tests, ast.Call):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        if name in ("raises", "assertRaises", "assertRaisesRegex", "suppress"):
            places += call.args[:1]
    return {n.id for place in places for n in nodes(place, ast.Name)}


@dataclass(frozen=True, slots=True)
class _Use:
    """How the tests use the results of calling a name."""

    attributes: set[str]
    is_compared: bool
    """Whether they compare a result with an expression without the candidate's names."""
    is_passed_on: bool


def _use_of(name: str, tests: ast.Module, candidate: set[str]) -> _Use:
    results = _results(name, tests)
    attributes = {n.attr for n in nodes(tests, ast.Attribute) if id(n.value) in results}
    compared = [[n.left, *n.comparators] for n in nodes(tests, ast.Compare)]
    touched = [sides for sides in compared if any(_holds(side, results) for side in sides)]
    is_compared = any(_is_plain(side, candidate) for sides in touched for side in sides)
    in_set = any(_holds(node, results) for node in nodes(tests, ast.Set))
    is_passed_on = bool(touched) or in_set or _is_argument(name, tests, results, candidate)
    return _Use(attributes - REVEALING, is_compared, is_passed_on)


def _holds(node: ast.AST, results: set[int]) -> bool:
    """Whether an expression is one of the results, or a collection that holds one."""
    items = node.elts if isinstance(node, ast.List | ast.Tuple | ast.Set) else ()
    return id(node) in results or any(_holds(item, results) for item in items)


def _is_named_class(name: str, given: ast.Module, prompt: str) -> bool:
    """Whether the prompt defines the name as a class or calls it one."""
    if any(isinstance(n, ast.ClassDef) and n.name == name for n in given.body):
        return True
    return bool(re.search(rf"\bclass\s+`*{name}\b|\b{name}`*\s+class\b", prompt))


def _classes(
    names: set[str], tests: ast.Module, given: ast.Module, prompt: str, candidate: set[str]
) -> tuple[set[str], set[str]]:
    """Names that the tests use as classes, and names that may be classes but whose results the
    tests also compare with plain data."""
    sure: set[str] = set()
    mixed: set[str] = set()
    for name in names:
        use = _use_of(name, tests, candidate)
        if _is_named_class(name, given, prompt):
            sure.add(name)
        elif CAPITAL.fullmatch(name) and (use.attributes or use.is_passed_on):
            (mixed if use.is_compared else sure).add(name)
    return sure, mixed


def _results(name: str, tests: ast.Module) -> set[int]:
    """Ids of the expressions that are calls of a name, arithmetic on them, or variables that hold
    one."""
    found = {id(call) for call in _calls(tests) if call.func.id == name}
    for node in reversed(list(nodes(tests, ast.BinOp, ast.UnaryOp))):
        parts = (node.operand,) if isinstance(node, ast.UnaryOp) else (node.left, node.right)
        if any(id(part) in found for part in parts):
            found.add(id(node))
    held = {
        target.id
        for node in nodes(tests, ast.Assign)
        if id(node.value) in found
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return found | {id(n) for n in nodes(tests, ast.Name) if n.id in held}


def _is_plain(node: ast.AST, candidate: set[str]) -> bool:
    """Whether an expression uses none of the candidate's names."""
    return not any(n.id in candidate for n in nodes(node, ast.Name))


def _is_argument(name: str, tests: ast.Module, results: set[int], candidate: set[str]) -> bool:
    """Whether a result is an argument of another function of the candidate."""
    return any(
        id(node) in results
        for call in _calls(tests)
        if call.func.id in candidate - {name}
        for arg in call.args
        for node in ast.walk(arg)
    )


def nodes(tree: ast.AST, *kinds: type[Any]) -> Iterator[Any]:
    """All nodes of some kinds below one."""
    found = _walked(tree) if isinstance(tree, ast.Module) else ast.walk(tree)
    return (node for node in found if isinstance(node, kinds))


@lru_cache(maxsize=4)
def _walked(tree: ast.Module) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree))
