"""The house stands: modules import downwards only, without cycles, at the top of the file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"

FLOORS = {
    "strop": 0, "errors": 0, "types": 0,
    "recipe": 1, "metrics": 1,
    "losses": 2, "advantages": 2, "text": 2, "data": 2, "evals.stats": 2,
    "evals.decode.estimators": 2,
    "data.dedup": 2.5, "data.contamination": 2.5,
    "data.sources": 3, "model": 3, "registry": 3, "sandbox": 3,
    "rewards": 4, "rollout": 4,
    "evals": 4.5, "train": 5,
    "pipeline": 5.5,
    "demo": 6,
    "cli": 7,
}  # fmt: skip
"""DESIGN section 2; training measures on dev suites, so evals stand below it, and the pipeline runs
both, so it stands above."""


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    module_name(path): ast.parse(path.read_text())
    for path in SRC.rglob("*.py")
    if "files" not in path.parts
}


def floor_of(module: str) -> float:
    inner = module.removeprefix("strop").removeprefix(".") or "strop"
    parts = inner.split(".")
    for length in (3, 2, 1):
        name = ".".join(parts[:length])
        if name in FLOORS:
            return FLOORS[name]
    raise AssertionError(f"{module} stands on no floor: add it to FLOORS")


def package_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def imports_of(tree: ast.AST) -> list[tuple[str, int]]:
    """(strop module, line) of every import below a node."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(n if n in MODULES else node.module, node.lineno) for n in names]
    return [(name, line) for name, line in found if name.split(".")[0] == "strop"]


def upward(importer: str, imported: str) -> bool:
    if package_of(importer) == package_of(imported) and "." in importer:
        return False
    return floor_of(imported) >= floor_of(importer) and imported != "strop"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down_or_stay_in_the_package(module: str) -> None:
    wrong = [
        f"line {line}: {imported}"
        for imported, line in imports_of(MODULES[module])
        if upward(module, imported)
    ]
    assert not wrong, f"{module} (floor {floor_of(module)}) imports upwards: {wrong}"


def test_no_cycles() -> None:
    graph = {
        name: {imported for imported, _ in imports_of(tree) if imported in MODULES} - {name}
        for name, tree in MODULES.items()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"cycle: {' -> '.join([*path, module])}"
        if module not in done:
            for imported in graph[module]:
                visit(imported, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", sorted(m for m in MODULES if not m.startswith("strop.cli")))
def test_no_imports_inside_functions(module: str) -> None:
    functions = [n for n in ast.walk(MODULES[module]) if isinstance(n, ast.FunctionDef)]
    hidden = [found for function in functions for found in imports_of(function)]
    assert not hidden


def test_the_rules_can_fail() -> None:
    assert upward("strop.losses.policy", "strop.train.step")
    assert upward("strop.rollout.local", "strop.rewards.exact")
    assert not upward("strop.train.step", "strop.losses.policy")
    hidden = ast.parse("def f():\n    from strop.train.step import pieces")
    assert imports_of(hidden) == [("strop.train.step", 2)]


def test_sizes() -> None:
    """No file over 500 lines, no function over 80 (loops 120), at most 6 positional parameters."""
    for name, tree in MODULES.items():
        last = max((getattr(node, "end_lineno", 0) or 0) for node in ast.walk(tree))
        assert last <= 500, f"{name} has {last} lines"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= 80, f"{name}.{node.name} has {length} lines"
                if not name.startswith("strop.cli"):
                    positional = [a for a in node.args.args if a.arg not in ("self", "cls")]
                    assert len(positional) <= 6, f"{name}.{node.name} takes {len(positional)}"
