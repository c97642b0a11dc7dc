"""The page on other systems says which methods each of them has."""

from __future__ import annotations

import re

from strop.advise.elsewhere.names import ORIGINS, TARGETS
from strop.advise.elsewhere.table import EXPORTERS, IMPORTERS
from tests.support import ROOT

PAGE = (ROOT / "docs/elsewhere.md").read_text()


def test_the_table_of_systems() -> None:
    said = {}
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            said[cells[0].strip("`")] = set(re.findall(r"`(\w+)`", cells[2]))
    assert said == {name: set(system.methods) for name, system in EXPORTERS.items()}


def test_the_systems_that_recipes_come_from() -> None:
    back = PAGE.split("## Back")[1]
    assert all(f"`{name}`" in back for name in IMPORTERS)


def test_what_can_be_typed_is_what_there_is() -> None:
    """The help and the refusals print these names."""
    assert tuple(EXPORTERS) == TARGETS
    assert tuple(IMPORTERS) == ORIGINS
