"""Bradley and Terry with covariates: against statsmodels, against simulation, and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm

from strop.stats.bradley_terry import BradleyTerry, bradley_terry


def simulated(seed: int, comparisons: int = 3000, length: float = 0.8) -> dict[str, Any]:
    """Three sides of strengths 0.6, 0 and -0.6; longer answers and the first place are liked."""
    draw = np.random.default_rng(seed)
    strengths = {"a": 0.6, "b": 0.0, "c": -0.6}
    pairs = [draw.choice(["a", "b", "c"], 2, replace=False) for _ in range(comparisons)]
    first, second = ([str(pair[n]) for pair in pairs] for n in (0, 1))
    # the stronger a side, the longer its answers
    gap = np.array([2 * (strengths[x] - strengths[y]) for x, y in zip(first, second, strict=True)])
    longer = gap + draw.normal(size=comparisons)
    logit = gap / 2 + length * longer + 0.4
    won = (draw.random(comparisons) < 1 / (1 + np.exp(-logit))).astype(float)
    return {
        "first": first, "second": second, "outcome": won,
        "covariates": {"length": longer, "order": np.ones(comparisons)},
        "clusters": [n // 2 for n in range(comparisons)],
    }  # fmt: skip


def fitted(**changes: Any) -> BradleyTerry:
    return bradley_terry(**{**simulated(0), **changes})


def test_equals_a_logistic_regression_of_another_library() -> None:
    data = simulated(1, comparisons=400)
    sides = [[(x == side) - (y == side) for side in ("a", "b")]
             for x, y in zip(data["first"], data["second"], strict=True)]  # fmt: skip
    design = np.column_stack([np.array(sides, dtype=float), *data["covariates"].values()])
    other = sm.Logit(data["outcome"], design).fit(
        disp=0, cov_type="cluster", cov_kwds={"groups": np.array(data["clusters"])}
    )
    found = bradley_terry(**data)
    assert found.strengths["a"] - found.strengths["c"] == pytest.approx(other.params[0], abs=1e-3)
    assert found.effects["length"].estimate == pytest.approx(other.params[2], abs=1e-3)
    half = (found.effects["length"].high - found.effects["length"].low) / 2
    assert half == pytest.approx(1.972 * other.bse[2], rel=0.02)


def test_length_and_order_are_taken_out() -> None:
    found = fitted()
    assert found.effects["length"].estimate == pytest.approx(0.8, abs=0.12)
    assert found.effects["order"].estimate == pytest.approx(0.4, abs=0.12)
    fair = found.chance("a", "c")
    assert fair.low < 1 / (1 + np.exp(-1.2)) < fair.high
    raw = bradley_terry(**{**simulated(0), "covariates": {}}).chance("a", "c").estimate
    assert raw > fair.high  # length made it look better
    back = found.chance("c", "a")
    assert back.estimate == pytest.approx(1 - fair.estimate)


def test_intervals_cover() -> None:
    held = 0
    for seed in range(200):
        effect = bradley_terry(**simulated(seed, comparisons=300)).effects["length"]
        held += effect.low <= 0.8 <= effect.high
    assert 0.91 <= held / 200 <= 0.985


def test_a_side_that_always_wins_is_strong_and_finite() -> None:
    found = bradley_terry(["a"] * 20, ["b"] * 20, [1] * 20, {}, range(20))
    assert 0.99 < found.chance("a", "b").estimate < 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"outcome": np.full(3000, 2.0)}, "outside 0 to 1"),
        ({"clusters": [0] * 3000}, "1 prompts are too few"),
        ({"clusters": [0] * 7}, "not of one length"),
        ({"covariates": {"zero": np.zeros(3000)}}, "zero never varies apart"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fitted(**changes)


def test_sides_that_never_met_are_refused() -> None:
    with pytest.raises(ValueError, match="never compared"):
        bradley_terry(["a"] * 5 + ["c"] * 5, ["b"] * 5 + ["d"] * 5, [1, 0] * 5, {}, range(10))
    same = np.array([1.0] * 10)
    with pytest.raises(ValueError, match="order never varies apart"):
        bradley_terry(["a"] * 10, ["b"] * 10, [1, 0] * 5, {"order": same}, range(10))
