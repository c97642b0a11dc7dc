"""Curves as SVG: spikes survive thinning, ticks are round, what is shown is said."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from strop.tracking.story.log import Alarm
from strop.tracking.story.panels import Panel, Series
from strop.tracking.story.svg import HEIGHT, WIDTH, chart, smooth, thinned, ticks


def series(values: list[float], role: str = "training") -> Series:
    steps = np.arange(1, len(values) + 1)
    assert role in ("training", "held out")
    kind = "training" if role == "training" else "held out"
    return Series("reward", kind, steps, np.array(values))  # type: ignore[arg-type]


def panel(*curves: Series, alarms: tuple[Alarm, ...] = ()) -> Panel:
    return Panel("reward", "Reward", curves, alarms, "together")


def test_a_spike_of_one_step_survives_thinning() -> None:
    values = np.zeros(10_000)
    values[4321] = 9.0
    values[77] = -5.0
    steps, kept = thinned(np.arange(10_000), values, 240)
    assert len(kept) <= 240
    assert kept.max() == 9.0
    assert kept.min() == -5.0
    assert steps[kept.argmax()] == 4321
    assert (np.diff(steps) > 0).all()


def test_smoothing_is_the_mean_around() -> None:
    assert smooth(np.array([1.0, 4.0, 1.0, 10.0]), 3).tolist() == [2.5, 2.0, 5.0, 5.5]


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_and_inside(low: float, span: float) -> None:
    assume(span > 1e-6 * abs(low))  # a flatter curve is folded away
    high = low + span
    found = ticks(low, high)
    assert all(low - 1e-6 * span <= one <= high + 1e-6 * span for one in found)
    assert 2 <= len(found) <= 8


def test_alarms_are_marks_at_their_step_with_their_words() -> None:
    alarm = Alarm("displacement", 3, "warn", 'displacement at step 3: "a" < b & c')
    drawn = ET.fromstring(chart(panel(series([1.0, 2.0, 3.0]), alarms=(alarm,)), (1, 5)))
    (mark,) = (one for one in drawn.iter("g") if one.get("class") == "alarm")
    line = mark.find("line")
    assert line is not None
    middle = 52 + (WIDTH - 52 - 12) / 2
    assert abs(float(line.get("x1", "0")) - middle) < 0.1
    assert mark.findtext("title") == alarm.said
    assert "alarm: displacement" in drawn.get("aria-label", "")


def test_points_lie_inside_and_keep_their_order() -> None:
    drawn = chart(panel(series([5.0, -2.0, 7.0]), series([0.0, 1.0, 2.0], "held out")), (0, 3))
    lines = re.findall(r'polyline class="([\w ]+|held-out)" points="([^"]+)"', drawn)
    assert [name for name, _ in lines] == ["training", "held-out"]
    for _, points in lines:
        pairs = [tuple(map(float, one.split(","))) for one in points.split()]
        assert [x for x, _ in pairs] == sorted(x for x, _ in pairs)
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in pairs)


def test_where_a_run_was_resumed_stands_a_dashed_line() -> None:
    drawn = chart(panel(series([1.0, 2.0, 3.0])), (1, 3), resumed=[2])
    assert drawn.count('class="resumed"') == 1
    assert "resumed after step 2" in drawn
