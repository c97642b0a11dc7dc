"""Rows in which anything may stand anywhere: a finding with its line, never a crash."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from strop.curate.signals.sources.table import SOURCES
from tests.support.export_rows import ROWS
from tests.support.exports import Make

ODD = (None, 7, -1.5, True, "", "text", "[", "{}", [], {}, [None], [[]], [{}], ["text"], [7],
       {"a": None}, {"role": 7}, {"role": "user", "content": 5}, float("inf"), 10**30)  # fmt: skip
"""What stands in the place of a value."""


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values inside a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, one in inside:
        found.append((*above, key))
        if isinstance(one, dict | list):
            found += places(one, (*above, key))
    return found


def spoilt(row: dict[str, Any], place: tuple[Any, ...], odd: Any) -> dict[str, Any]:
    """The row with another value at a place."""
    changed = copy.deepcopy(row)
    holder: Any = changed
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = odd
    return changed


@pytest.mark.parametrize("name", SOURCES)
def test_the_clean_rows_are_clean(make: Make, name: str) -> None:
    made = make(ROWS[name])
    assert [found for counts in made.built.recognised.values() for found in counts] == [name]
    assert list(made.built.bad) == []
    assert made.built.unknown in ({}, {"mlflow": {"info.trace_metadata.a": 1}})
    assert sum(made.built.records.values()) > 0
    assert made.adds_up()


@pytest.mark.parametrize("name", SOURCES)
def test_a_row_with_odd_values_is_read_or_refused(make: Make, name: str) -> None:
    drawn = random.Random(name)
    rows = []
    for row in ROWS[name]:
        for place in places(row):
            rows += [spoilt(row, place, odd) for odd in drawn.sample(ODD, 6)]
    made = make(rows, source=name, max_bad=1)
    assert made.adds_up()
    lines = {bad.origin.line for bad in made.built.bad}
    assert lines <= set(range(1, len(rows) + 1))
    assert all(bad.reason for bad in made.built.bad)
    again = make(rows, max_bad=1)
    assert again.adds_up()
