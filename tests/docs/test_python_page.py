"""docs/python.md: its blocks run in order and print what the page says; every name is on it."""

from __future__ import annotations

import contextlib
import doctest
import inspect
import io
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

import strop
from tests.support import ROOT

PAGE = ROOT / "docs/python.md"
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", flags=re.S)


def run_page(text: str, folder: Path) -> Iterator[tuple[str, str]]:
    """What every block should print, and what it prints; all blocks share their names."""
    names: dict[str, Any] = {"__name__": "page"}
    for number, (code, wanted) in enumerate(BLOCK.findall(text)):
        file = folder / f"block-{number}.py"
        file.write_text(code)  # a file, as a function's source is read from one
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(code, str(file), "exec"), names)
        yield wanted, said.getvalue()


def agrees(wanted: str, said: str) -> bool:
    """Line by line; `...` stands for anything."""
    return doctest.OutputChecker().check_output(wanted, said, doctest.ELLIPSIS)


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    compared = 0
    for wanted, said in run_page(PAGE.read_text(), tmp_path):
        assert agrees(wanted, said), f"the page says\n{wanted}\nand it prints\n{said}"
        compared += bool(wanted)
    assert compared == 10


def test_a_wrong_page_is_found(tmp_path: Path) -> None:
    page = "```python\nx = 1\n```\n\n```python\nprint(x + 1)\n```\n\n```text\n3\n```\n"
    assert [agrees(*pair) for pair in run_page(page, tmp_path)] == [True, False]


def attributes(cls: type) -> set[str]:
    """Public names of a result's objects, without those of tuples and the like."""
    own = {name for c in cls.__mro__ if c.__module__.startswith("strop") for name in vars(c)}
    own |= {field.name for field in fields(cls)} if is_dataclass(cls) else set()
    return {name for name in own if not name.startswith("_")}


@pytest.mark.parametrize("name", strop.__all__)
def test_every_name_is_documented(name: str) -> None:
    text = PAGE.read_text()
    assert re.search(rf"`(strop\.)?{name}\b", text)
    found = getattr(strop, name)
    if isinstance(found, type) and found.__module__ == "strop.results":
        missing = {one for one in attributes(found) if not re.search(rf"\b{one}\b", text)}
        assert not missing
    elif not isinstance(found, type):
        parameters = inspect.signature(found).parameters
        assert parameters
        assert not {one for one in parameters if not re.search(rf"\b{one}\b", text)}


def test_all_is_what_the_package_offers() -> None:
    assert set(dir(strop)) == {*strop.__all__, "__version__"}
    assert all(hasattr(strop, name) for name in strop.__all__)
    with pytest.raises(AttributeError, match="no attribute 'serve_everything'"):
        strop.serve_everything  # noqa: B018 - asking is the test
