"""Which component drives the advantage: by hand, by property, on planted and on clean rewards."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.recipe.loading.load import load_recipe
from strop.recipe.train.reward import RewardComponent
from strop.rewards.audit.dominance import dominance, faults, static_margin
from strop.rewards.combine import total_of
from strop.train.run import train
from tests.support.runs import metrics


def of(*components: dict[str, Any]) -> list[RewardComponent]:
    return [RewardComponent(**component) for component in components]


RIGHT = {"function": "exact_answer", "name": "right"}
FORM = {"function": "format_tags", "name": "form", "weight": 0.2}


def rows(*values: tuple[float | None, ...], names: str = "right form") -> list[dict[str, Any]]:
    return [dict(zip(names.split(), v, strict=True)) for v in values]


def test_shares_by_hand() -> None:
    """R = right + 0.2 form over (1,1) (0,1) (1,0) (0,0): Var(right) = 1/4, Var(0.2 form) = 1/100,
    no covariance, so D = 0.25 / 0.26 and 0.01 / 0.26."""
    group = rows((1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.0, 0.0))
    found = dominance(of(RIGHT, FORM), [group])
    assert found.shares == pytest.approx({"right": 0.25 / 0.26, "form": 0.01 / 0.26})
    assert found.inversions == 0.0
    assert found.collapsed == 0.0


def test_a_group_counts_by_its_variance_and_a_share_can_be_negative() -> None:
    """In the second group form runs against right: totals 1 and 0.2, Cov(form part) = -0.04."""
    groups = [rows((1.0, 0.0), (0.0, 1.0)), rows((1.0, 1.0), (1.0, 1.0))]
    found = dominance(of(RIGHT, FORM), groups)
    assert found.shares == pytest.approx({"right": 0.2 / 0.16, "form": -0.04 / 0.16})


Groups = st.lists(
    st.lists(st.tuples(*[st.floats(-3, 3).map(lambda x: round(x, 2))] * 3), min_size=2, max_size=6),
    min_size=1,
    max_size=4,
)


@given(Groups, st.booleans())
def test_shares_add_to_one(drawn: list[list[tuple[float, ...]]], gate: bool) -> None:
    components = of(
        {"function": "exact_answer", "name": "a"},
        {"function": "exact_answer", "name": "b", "weight": -0.7},
        {"function": "exact_answer", "name": "c", "gate": gate},
    )
    groups = [rows(*group, names="a b c") for group in drawn]
    found = dominance(components, groups)
    spread = max(
        max(t) - min(t)
        for t in ([total_of(components, p) or 0.0 for p in group] for group in groups)
    )
    if spread > 0.01:
        assert sum(found.shares.values()) == pytest.approx(1.0, abs=1e-6)


def test_inversions_count_ties_half() -> None:
    """Pairs by right: (1, 0) four times; totals 1.0, 1.0 against 1.5, 1.0: two lost, two tied."""
    components = of(RIGHT, {**FORM, "weight": 1.5})
    group = rows((1.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.0, 2 / 3))
    assert dominance(components, [group]).inversions == (1 + 1 + 0.5 + 0.5) / 4


def test_collapse_counts_pairs_that_only_components_tell_apart() -> None:
    components = of(RIGHT, {**FORM, "weight": 1.0})
    group = rows((1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
    assert dominance(components, [group]).collapsed == pytest.approx(1 / 3)


def test_dead_and_silent_components() -> None:
    components = of(RIGHT, FORM, {"function": "language", "name": "tongue", "optional": True})
    group = rows((1.0, 1.0, None), (0.0, 1.0, None), names="right form tongue")
    found = dominance(components, [group])
    assert (found.dead, found.silent) == (("form",), ("tongue",))
    wrong = {fault.component for fault in faults(components, found, static_margin(components, []))}
    assert wrong == {"form", "tongue"}


@pytest.mark.parametrize(
    ("components", "value", "against"),
    [
        ((RIGHT, FORM), 0.8, ("form",)),
        ((RIGHT, {**FORM, "weight": 1.5}), -0.5, ("form",)),
        ((RIGHT, {**FORM, "weight": -1.0}), 0.0, ("form",)),
        ((RIGHT, {**FORM, "clip": (0.0, 0.5), "weight": 1.0}), 0.5, ("form",)),
        (({**RIGHT, "weight": 3.0}, {"function": "repetition", "weight": 2.0}, FORM), 0.8,
         ("repetition", "form")),
        (({**RIGHT, "gate": True}, FORM), 0.0, ("form",)),
        (({**RIGHT, "gate": True},), 1.0, ()),
        ((RIGHT, {"function": "language", "gate": True}), 0.0, ("language",)),
    ],
)  # fmt: skip
def test_static_margin_by_hand(
    components: tuple[dict[str, Any], ...], value: float, against: tuple[str, ...]
) -> None:
    margin = static_margin(of(*components), [])
    assert margin.value == pytest.approx(value)
    assert margin.against == against


def test_the_proposed_weight_mends_it() -> None:
    components = of(RIGHT, {**FORM, "weight": 1.5})
    margin = static_margin(components, [])
    mended = of({**RIGHT, "weight": margin.needed}, {**FORM, "weight": 1.5})
    assert static_margin(mended, []).value > 0


def simulated(weight: float, seed: int) -> tuple[list[RewardComponent], list[list[dict[str, Any]]]]:
    """Groups of 8: right half of the time, tidy 70 % of the time, unrelated."""
    draw = random.Random(seed)
    groups = [
        rows(*((float(draw.random() < 0.5), float(draw.random() < 0.7)) for _ in range(8)))
        for _ in range(50)
    ]
    return of(RIGHT, {**FORM, "weight": weight}), groups


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_dominance_is_named_and_a_clean_reward_holds(seed: int) -> None:
    components, groups = simulated(0.2, seed)
    assert not faults(components, dominance(components, groups), static_margin(components, groups))
    components, groups = simulated(3.0, seed)
    found = faults(components, dominance(components, groups), static_margin(components, groups))
    assert {fault.component for fault in found} == {"form", "right"}
    assert "form" in {fault.component for fault in found if "drives" in fault.problem}
    assert all("right weight: 3.75" in fault.fix for fault in found)


def test_training_logs_what_drives_its_advantages(recipes: dict[str, Path]) -> None:
    """Two components over 2 steps: shares add to 1 wherever rewards differ at all."""
    components = (
        "reward=[{function: shorter, file: rewards.py, weight: 0.01}, {function: format_tags}]"
    )
    rows = metrics(train(load_recipe(recipes["grpo"], [components, "run.steps=2"])).parent)
    shown = [row for row in rows if "dominance/shorter" in row]
    assert shown
    for row in shown:
        assert row["dominance/shorter"] + row["dominance/format_tags"] == pytest.approx(1.0)
    alone = "reward=[{function: shorter, file: rewards.py}]"
    rows = metrics(
        train(load_recipe(recipes["grpo"], [alone, "run.steps=1", "output=runs/alone"])).parent
    )
    assert not any(name.startswith("dominance/") for name in rows[0])
    buffered = [alone, "run.steps=1", "output=runs/buffer", "rollout.overlong_buffer=4"]
    rows = metrics(train(load_recipe(recipes["grpo"], buffered)).parent)
    assert "dominance/overlong" in rows[0]
