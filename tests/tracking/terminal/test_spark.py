"""Sparklines by hand: levels, gaps, the shared axis, marks."""

from __future__ import annotations

import math

import pytest

from strop.tracking.terminal.spark import BLOCKS, PLAIN, column, columns, marks, sparkline


def test_eight_levels_from_low_to_high() -> None:
    assert sparkline([n / 7 for n in range(8)], (0.0, 1.0)) == BLOCKS == "▁▂▃▄▅▆▇█"
    assert sparkline([n / 7 for n in range(8)], (0.0, 1.0), PLAIN) == PLAIN


@pytest.mark.parametrize(
    ("value", "level"),
    [(0.49, "▁"), (0.5, "▂"), (1.49, "▂"), (1.5, "▃"), (6.5, "█"), (-3.0, "▁"), (99.0, "█")],
)
def test_a_value_has_the_nearest_level_and_none_beyond_the_bounds(value: float, level: str) -> None:
    assert sparkline([value], (0.0, 7.0)) == level


def test_what_is_missing_is_a_gap_and_what_is_flat_is_in_the_middle() -> None:
    assert sparkline([0.0, None, 1.0, math.nan, math.inf], (0.0, 1.0)) == "▁ █  "
    assert sparkline([3.0, None, 3.0], (3.0, 3.0)) == "▄ ▄"
    assert sparkline([], (0.0, 1.0)) == ""


def test_more_steps_than_columns_are_averaged() -> None:
    # steps 1 to 8 in 4 columns: two steps each
    assert columns(range(1, 9), [0, 2, 4, 6, 8, 10, 12, 14], (1, 8), 4) == [1, 5, 9, 13]


def test_fewer_steps_than_columns_fill_their_own() -> None:
    # steps 1 to 3 in 8 columns: 0 and 1, 2 to 4, 5 to 7
    assert columns([1, 2, 3], [1.0, 2.0, 3.0], (1, 3), 8) == [1, 1, 2, 2, 2, 3, 3, 3]


def test_a_curve_that_was_measured_now_and_then_has_gaps() -> None:
    found = columns([10, 20, 30, 40], [1.0, 2.0, math.nan, 4.0], (1, 40), 8)
    assert found == [None, 1.0, None, 2.0, None, None, None, 4.0]


@pytest.mark.parametrize("width", [1, 7, 36, 100])
@pytest.mark.parametrize("span", [(0, 0), (1, 3), (5, 4000)])
def test_every_step_has_a_column_and_the_order_stays(span: tuple[int, int], width: int) -> None:
    places = [column(step, span, width) for step in range(span[0], span[1] + 1)]
    assert places[0] == 0
    assert places == sorted(places)
    assert places[-1] < width
    values = [1.0] * len(places)
    assert columns(range(span[0], span[1] + 1), values, span, width) == [1.0] * width


def test_marks_stand_below_their_step() -> None:
    # 40 steps in 8 columns, five each: 20 ends the fourth, 21 begins the fifth
    assert marks([20], (1, 40), 8) == "   ▲    "
    assert marks([21, 22, 40], (1, 40), 8, "^") == "    ^  ^"
    cells = columns([20], [1.0], (1, 40), 8)
    assert [n for n, value in enumerate(cells) if value is not None] == [3]
