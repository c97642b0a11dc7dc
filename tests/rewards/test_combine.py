"""Weights, gates, clips and normalisation: one number, and what each component adds to it."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.recipe.train.reward import RewardComponent
from strop.rewards.combine import contributions, shaped, total_of
from strop.rewards.compose import Reward

RIGHT = {"function": "exact_answer"}


def of(*components: dict[str, Any]) -> list[RewardComponent]:
    return [RewardComponent(**component) for component in components]


def named(name: str, **more: Any) -> dict[str, Any]:
    return {"function": "exact_answer", "name": name, **more}


@pytest.mark.parametrize(
    ("components", "values", "total"),
    [
        ([named("a"), named("b", weight=0.5)], (1.0, 1.0), 1.5),
        ([named("a", weight=-2.0), named("b")], (1.0, 0.5), -1.5),
        ([named("a", gate=True), named("b", weight=0.5)], (0.0, 1.0), 0.0),
        ([named("a", gate=True), named("b", weight=0.5)], (0.5, 1.0), 0.25),
        ([named("a", gate=True), named("b", gate=True)], (0.5, 0.5), 0.25),
        ([named("a"), named("b")], (1.0, None), None),
        ([named("a"), named("b", optional=True)], (1.0, None), 1.0),
        ([named("a"), named("b", gate=True, optional=True)], (1.0, None), 1.0),
        ([named("a", optional=True)], (None,), 0.0),
    ],
)
def test_totals_by_hand(
    components: list[dict[str, Any]], values: tuple[float | None, ...], total: float | None
) -> None:
    parts = dict(zip("ab", values, strict=False))
    assert total_of(of(*components), parts) == total


def test_what_gates_add_by_hand() -> None:
    """S = 1 + 0.5 = 1.5; the first gate takes half of it, the second all that is left."""
    components = of(named("g", gate=True), named("a"), named("b", weight=0.5),
                    named("h", gate=True))  # fmt: skip
    parts = {"g": 0.5, "a": 1.0, "b": 1.0, "h": 0.0}
    assert contributions(components, parts) == {"a": 1.0, "b": 0.5, "g": -0.75, "h": -0.75}


Value = st.floats(-4, 4).map(lambda x: round(x, 3))
Component = st.tuples(st.booleans(), Value.filter(bool), Value)


@given(st.lists(Component, min_size=1, max_size=5))
def test_contributions_add_up_to_the_total(drawn: list[tuple[bool, float, float]]) -> None:
    components = of(
        *(named(str(i), gate=gate, weight=1.0 if gate else weight)
          for i, (gate, weight, _) in enumerate(drawn))
    )  # fmt: skip
    parts = {str(i): value for i, (_, _, value) in enumerate(drawn)}
    total, added = total_of(components, parts), contributions(components, parts)
    assert total is not None
    assert added is not None
    constant = 1.0 if all(gate for gate, *_ in drawn) else 0.0
    assert math.fsum(added.values()) + constant == pytest.approx(total, abs=1e-9)


def test_clip_comes_before_the_weight() -> None:
    components = of(named("a", clip=(-1.0, 0.5), weight=2.0))
    rows = shaped(components, [{"a": 3.0}, {"a": -7.0}, {"a": 0.25}, {"a": None}], normalize=False)
    assert [row["a"] for row in rows] == [0.5, -1.0, 0.25, None]
    assert [total_of(components, row) for row in rows] == [1.0, -2.0, 0.5, None]


def test_a_normalised_component_is_centred_and_scaled_within_its_group() -> None:
    components = of(named("a", normalize=True), named("b"))
    group = [{"a": v, "b": 1.0} for v in (1.0, 2.0, 6.0, None)]
    rows = shaped(components, group, normalize=True)
    spread = statistics.stdev([1.0, 2.0, 6.0]) + 1e-4
    assert [row["a"] for row in rows] == pytest.approx(
        [-2.0 / spread, -1.0 / spread, 3.0 / spread, None]
    )
    assert [row["b"] for row in rows] == [1.0] * 4
    equal = shaped(components, [{"a": 7.0, "b": 1.0}] * 3, normalize=True)
    assert [row["a"] for row in equal] == [0.0] * 3


def test_groups_are_normalised_one_by_one_in_training_and_not_at_all_in_evals() -> None:
    """Two prompts with answers of lengths 1 and 3, and 10 and 30 words."""
    component = {"function": "length", "normalize": True,
                 "options": {"least": 0, "most": 0, "fall": 100, "unit": "words"}}  # fmt: skip
    texts = ["w " * n for n in (1, 3, 10, 30)]
    trained = Reward(of(component), in_groups=True).judge(["p"] * 4, texts, {}, 2)
    totals = [score.total for score in trained.scores]
    assert totals[0] == pytest.approx(-totals[1])  # type: ignore[operator]
    assert totals[2] == pytest.approx(-totals[3])  # type: ignore[operator]
    assert totals[0] == pytest.approx(0.01 / (0.01 * math.sqrt(2) + 1e-4))
    assert [score.components["length"] for score in trained.scores] == [0.99, 0.97, 0.9, 0.7]
    judged = Reward(of(component)).judge(["p"] * 4, texts, {}, 2)
    assert [score.total for score in judged.scores] == [0.99, 0.97, 0.9, 0.7]


def test_time_is_kept_by_component() -> None:
    reward = Reward(of(RIGHT, {"function": "format_tags"}))
    reward.judge(["p"], ["5"], {"answer": ["5"]})
    assert set(reward.seconds) == {"exact_answer", "format_tags"}
    assert all(seconds > 0 for seconds in reward.seconds.values())
