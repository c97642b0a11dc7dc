"""What sways a judge: estimates against planted truth, coverage, and taking it out again."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray

from strop.judge.bias.sway import Sway, chance_at_no_bias, differences, marks, sways

Floats = NDArray[np.float64]


def chances(logits: Floats) -> Floats:
    found: Floats = 1 / (1 + np.exp(-logits))
    return found


class Planted:
    """Pairs with lengths and marks, people who like what is better, and a judge's log-odds with
    known weights of each."""

    def __init__(
        self, seed: int, pairs: int = 400, *, length: float = 0.0, own: float = 0.0
    ) -> None:
        draw = np.random.default_rng(seed)
        self.length = draw.normal(0, 80, pairs).round()
        # longer answers hold more marks: the two have to be told apart
        self.marks = (self.length / 40 + draw.normal(0, 1, pairs)).round()
        self.own = draw.choice([-1.0, 0.0, 1.0], pairs)
        self.people = (draw.random(pairs) < chances(self.length / 100)).astype(float)
        self.odds = (
            1.5 * (2 * self.people - 1) + length * self.length / 100 + own * self.own
            + draw.normal(0, 1, pairs)
        )  # fmt: skip
        self.verdicts = (draw.random(pairs) < chances(self.odds)).astype(float)
        self.clusters = list(range(pairs))

    def found(self, *, sure: bool = True) -> dict[str, Sway]:
        apart = {"length": self.length.tolist(), "formatting": self.marks.tolist(),
                 "own family": self.own.tolist()}  # fmt: skip
        odds = self.odds.tolist() if sure else None
        return sways(odds, self.verdicts.tolist(), self.people.tolist(), apart, self.clusters)


def test_marks_of_formatting() -> None:
    assert marks("# A\n- b\n- **c**") == 5
    assert marks("1. one\n2) two\n```x\n") == 3
    assert marks("a - b, 3. and c # d") == 0
    assert differences(("aaa\n- b", "aa")) == {"length": 5.0, "formatting": 1.0}


def test_linear_estimates_are_those_of_statsmodels() -> None:
    """Least squares with errors by clusters of two."""
    planted = Planted(0, length=0.7, own=0.4)
    planted.clusters = [n // 2 for n in range(400)]
    found = planted.found()
    units = [found[name].unit for name in found]
    assert units == pytest.approx([planted.length.std(), planted.marks.std(), 1.0])
    design = np.column_stack([
        np.ones(400), 2 * planted.people - 1, planted.length / units[0], planted.marks / units[1],
        planted.own,
    ])  # fmt: skip
    fit = sm.OLS(planted.odds, design).fit(
        cov_type="cluster",
        cov_kwds={"groups": np.array(planted.clusters), "use_correction": False},
    )
    correction = math.sqrt(200 / 199)
    for n, name in enumerate(found, start=2):
        half = 1.971956544 * fit.bse[n] * correction  # Student's quantile at 199
        assert found[name].estimate == pytest.approx(fit.params[n], rel=1e-9)
        assert found[name].high - found[name].estimate == pytest.approx(half, rel=1e-6)


@pytest.mark.parametrize("sure", [True, False])
def test_a_planted_taste_is_found_and_nothing_else(sure: bool) -> None:
    """Over 60 judges: what is planted is found, and what is not is known in about one of 20."""
    known = {"length": 0, "formatting": 0, "own family": 0}
    for seed in range(60):
        for name, sway in Planted(seed, length=1.5).found(sure=sure).items():
            known[name] += sway.is_known and sway.estimate > 0
    assert known["length"] >= 55
    assert known["formatting"] <= 5
    assert known["own family"] <= 5


def test_quality_that_goes_with_length_is_taken_for_a_taste_as_the_docs_say() -> None:
    """A judge without any taste, people who are right but noisy: the sway is far too high."""
    draw = np.random.default_rng(3)
    quality = draw.normal(0, 1, 2000)
    length = 100 * (quality + draw.normal(0, 1, 2000))
    people = (quality + draw.normal(0, 1, 2000) > 0).astype(float)
    found = sways((2 * quality).tolist(), [], people.tolist(), {"length": length.tolist()},
                  list(range(2000)))  # fmt: skip
    assert found["length"].low > 0.5


def test_intervals_cover_what_was_planted() -> None:
    covered = {"length": 0, "own family": 0}
    for seed in range(300):
        found = Planted(1000 + seed, 120, length=0.8, own=-0.5).found()
        length = 0.8 * found["length"].unit / 100
        covered["length"] += found["length"].low <= length <= found["length"].high
        covered["own family"] += found["own family"].low <= -0.5 <= found["own family"].high
    assert all(0.92 * 300 <= count <= 0.98 * 300 for count in covered.values()), covered


def test_taking_the_sway_out_leaves_what_people_prefer() -> None:
    """The judge's mean log-odds of the longer answer are back at those of a judge without taste."""
    planted = Planted(5, 2000, length=1.0)
    fair = Planted(5, 2000, length=0.0)
    known = planted.found()
    longer = planted.length > 40
    corrected = [
        chance_at_no_bias(float(odds), {"length": length, "formatting": 0.0}, known)
        for odds, length in zip(planted.odds[longer], planted.length[longer], strict=True)
    ]
    wanted = chances(fair.odds[longer]).mean()
    assert chances(planted.odds[longer]).mean() > wanted + 0.08
    assert np.mean(corrected) == pytest.approx(wanted, abs=0.02)


def test_no_sway_where_there_is_nothing_to_say() -> None:
    planted = Planted(1)
    apart = {"length": [0.0] * 400, "formatting": planted.marks.tolist(),
             "twice": planted.marks.tolist()}  # fmt: skip
    same = sways(planted.odds.tolist(), planted.verdicts.tolist(), planted.people.tolist(), apart,
                 planted.clusters)  # fmt: skip
    assert set(same) == {"formatting"}  # nothing varies, and nothing follows from another
    far = {"length": np.where(planted.length > 0, 1, -1) * (500 + planted.length / 10)}
    assert sways(planted.odds.tolist(), [], planted.people.tolist(),
                 {"length": far["length"].tolist()}, planted.clusters) == {}  # fmt: skip
    assert sways(planted.odds.tolist(), [], planted.people.tolist(), apart, ["one"] * 400) == {}


def test_what_is_not_known_is_not_taken_out() -> None:
    unknown = {"length": Sway(1.0, -0.1, 2.1, unit=100.0, linear=True)}
    odds = math.log(4)
    assert chance_at_no_bias(odds, {"length": 300.0}, unknown) == pytest.approx(0.8)
    known = {"length": Sway(1.0, 0.5, 1.5, unit=100.0, linear=True)}
    found = chance_at_no_bias(odds, {"length": 300.0}, known)
    assert found == pytest.approx(1 / (1 + math.exp(3 - odds)))
    assert chance_at_no_bias(1e6, {}, known) == 1.0
