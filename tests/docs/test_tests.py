"""The tests' own house: a test file imports no other, what is shared stands in support, once."""

from __future__ import annotations

import ast
from collections import Counter

import pytest

from tests.support import ROOT

FILES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text())
    for path in sorted((ROOT / "tests").rglob("*.py"))
}


def imported_tests(tree: ast.AST) -> list[str]:
    """The test files that a file imports."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    tests = ("test_", "tests.conftest")
    return [name for name in found if name.startswith(tests) or ".test_" in name]


@pytest.mark.parametrize("file", FILES)
def test_a_test_file_imports_no_other(file: str) -> None:
    assert not imported_tests(FILES[file])


@pytest.mark.parametrize("file", FILES)
def test_no_file_is_over_five_hundred_lines(file: str) -> None:
    assert len((ROOT / file).read_text().splitlines()) <= 500


def test_the_rules_can_fail() -> None:
    planted = [
        "from tests.train.test_dev import Setting",
        "from tests.train import test_dev",
        "from test_dev import Setting",
        "import test_dev",
        "from tests.conftest import tokenizer",
    ]
    assert all(imported_tests(ast.parse(line)) for line in planted)
    assert not imported_tests(ast.parse("from tests.support.runs import Stop, stop_at"))


def test_helpers_of_runs_are_written_once() -> None:
    """What interrupts a run, starts a command or compares two runs stands in support alone."""
    homes = Counter(
        node.name
        for tree in FILES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    )
    for name in ("Stop", "Child", "Finished", "break_off", "metrics", "sharp_model"):
        assert homes[name] == 1, name
