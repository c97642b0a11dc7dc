"""Scores of every scale, slices and flips in the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from strop.errors import DataError, MissingEvidenceError
from strop.evals.gate import gate
from strop.evals.records import read_records, write_records
from strop.recipe.gate import GateRules, Guardrail, Target
from strop.types import EvalRecord
from tests.support.gates import records, scores


class TestScales:
    """Scores of one name on two scales prove nothing; big differences on one scale do."""

    POLICY = GateRules(targets=[Target(score="a")])

    def judged(
        self, base: Sequence[float | None], candidate: Sequence[float | None],
        policy: GateRules = POLICY, /, **declared: Any,
    ) -> str:  # fmt: skip
        """Both ways round: the rule has no side."""
        left = [replace(r, scale=declared.get("base")) for r in records("a", base)]
        right = [replace(r, scale=declared.get("candidate")) for r in records("a", candidate)]
        return gate(left, right, policy).name

    GRADED = tuple(float(i % 11) for i in range(60))

    @pytest.mark.parametrize(
        ("base", "candidate", "ranges"),
        [
            (scores(5, 15), [100.0] * 8 + [0.0] * 12, ("0 to 1", "0 to 100")),
            (scores(20, 0), [100.0] * 8 + [0.0] * 12, ("1 to 1", "0 to 100")),
            (scores(5, 15), [10.0] * 8 + [0.0] * 12, ("0 to 1", "0 to 10")),
            ([i / 20 for i in range(20)], [5.0 * i for i in range(20)], ("0 to 0.95", "0 to 95")),
            (scores(5, 15), [2.0 + i % 4 for i in range(20)], ("0 to 1", "2 to 5")),
            (GRADED, [10 * v for v in GRADED], ("0 to 10", "0 to 100")),
            (GRADED, [10 * v if i % 3 else 30.0 for i, v in enumerate(GRADED)], ("0 to 10", "100")),
        ],
    )
    def test_two_scales_are_refused_with_both_ranges(
        self, base: Any, candidate: Any, ranges: tuple[str, str]
    ) -> None:
        for left, right in ((base, candidate), (candidate, base)):
            with pytest.raises(MissingEvidenceError, match="two scales") as caught:
                self.judged(left, right)
            assert all(one in str(caught.value) for one in ranges)
            assert caught.value.exit_code == 12

    @pytest.mark.parametrize(
        ("base", "candidate"),
        [
            (scores(0, 20), scores(15, 5)),  # nothing was right before
            (scores(0, 20), [100.0] * 15 + [0.0] * 5),  # 0 is 0 on both
            (scores(10, 10), [1.0, 2.0] * 10),  # a sum of rewards whose second part is new
            (scores(10, 10), [float(1 + i % 6) for i in range(20)]),  # counts
            ([0.0] * 20, [5.0 + i for i in range(20)]),  # KL to itself
            ([-0.5 - i / 40 for i in range(20)], [-0.1 - i / 400 for i in range(20)]),  # log-probs
            ([float(i) for i in range(10, 30)], [400.0 + 7 * i for i in range(20)]),  # lengths
            ([0.2 + i / 50 for i in range(20)], [-6.0 + i for i in range(20)]),  # a reward model's
            (GRADED, GRADED),
        ],
    )
    def test_one_scale_is_judged(self, base: Any, candidate: Any) -> None:
        assert self.judged(base, candidate) in ("pass", "regressed", "inconclusive")
        assert self.judged(candidate, base) in ("pass", "regressed", "inconclusive")

    COLLAPSED, LONG = tuple(scores(15, 5)), tuple(40.0 + i for i in range(20))

    def test_a_declared_scale_decides(self) -> None:
        """A length that was 0 or 1 and is 40 to 59 again: only a declaration can know."""
        with pytest.raises(MissingEvidenceError, match="two scales"):
            self.judged(self.COLLAPSED, self.LONG)
        free = (None, None)
        assert self.judged(self.COLLAPSED, self.LONG, base=free, candidate=free) == "pass"
        policy = GateRules(targets=[Target(score="a", scale=(0.0, None))])
        assert self.judged(self.COLLAPSED, self.LONG, policy) == "pass"

    def test_a_side_that_declares_binds_the_other(self) -> None:
        unit, percent = (0.0, 1.0), (0.0, 100.0)
        with pytest.raises(MissingEvidenceError, match="a side declares 0 to 1"):
            self.judged(scores(0, 20), [2.0, 0.0] * 10, base=unit)
        with pytest.raises(MissingEvidenceError, match="0 to 1 and 0 to 100"):
            self.judged(scores(5, 15), scores(15, 5), base=unit, candidate=percent)
        assert self.judged(scores(5, 15), scores(20, 0), base=unit) == "pass"

    def test_the_runs_of_the_noise_floor_too(self) -> None:
        base = records("a", scores(5, 15))
        with pytest.raises(MissingEvidenceError, match="two scales"):
            gate(base, base, self.POLICY, noise=[records("a", [100.0] * 5 + [0.0] * 15)])

    def test_it_is_written_and_read_with_the_record(self, tmp_path: Path) -> None:
        given = [EvalRecord("a", "1", 0.5, "1", scale=(0.0, None)), EvalRecord("a", "2", 9, "2")]
        write_records(tmp_path / "r.jsonl", given)
        assert read_records(tmp_path / "r.jsonl") == given

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ('{"item": 1, "score": 100, "scale": [0, 1]}', r"score 100 is not on its scale \[0, 1"),
            ('{"item": 1, "score": 1, "scale": [1, 0]}', "is not .lowest, highest."),
            ('{"item": 1, "score": 1, "scale": "unit"}', "is not .lowest, highest."),
            ('{"item": 1, "score": 1, "scale": [0, 1, 2]}', "is not .lowest, highest."),
            ('{"item": 1, "score": 1, "scale": [true, 2]}', "is not .lowest, highest."),
        ],
    )
    def test_a_scale_that_is_none(self, tmp_path: Path, row: str, message: str) -> None:
        (tmp_path / "s.jsonl").write_text(row + "\n")
        with pytest.raises(DataError, match=rf"s\.jsonl:1: .*{message}"):
            read_records(tmp_path / "s.jsonl")

    def test_a_policys_scale_has_two_ends(self) -> None:
        with pytest.raises(ValueError, match="leaves one value"):
            Target(score="a", scale=(1.0, 1.0))


class TestSlices:
    def grouped(self, values: dict[str, list[float]]) -> list[EvalRecord]:
        return [
            EvalRecord("a", f"{name}{i}", score, f"{name}{i}", slices={"topic": name})
            for name, column in values.items()
            for i, score in enumerate(column)
        ]

    def test_who_lost_behind_a_gain(self) -> None:
        base = {"easy": [0.0] * 200, "hard": [1.0] * 40, "new": [0.0, 1.0] * 20, "few": [1.0] * 3}
        after = {**base, "easy": [1.0] * 150 + [0.0] * 50, "hard": [0.0] * 15 + [1.0] * 25}
        verdict = gate(
            self.grouped(base), self.grouped(after), GateRules(targets=[Target(score="a")])
        )
        assert verdict.name == "pass"  # groups are advice
        found = {one.value: one for one in verdict.slices}
        assert found.keys() == {"easy", "hard", "new"}  # three items are no group
        assert found["hard"].estimate == pytest.approx(-15 / 40)
        assert found["hard"].q_value < 0.001
        assert found["new"].q_value == pytest.approx(1.0)
        assert [one.value for one in verdict.slices][-1] == "new"


class TestFlips:
    def test_a_mean_that_stands_still_hides_churn(self) -> None:
        base = records("a", scores(100, 100))
        swapped = records("a", [*[0.0] * 30, *[1.0] * 100, *[0.0] * 70])
        check = gate(base, swapped, GateRules(guardrails=[Guardrail(score="a")])).checks[0]
        assert (check.lost, check.gained, check.churn) == (30, 30, 0.3)
        assert check.estimate == 0.0
        assert check.mcnemar == pytest.approx(1.0)
        graded = gate(
            records("a", [0.1, 0.5, 0.2, 0.4, 0.3]), records("a", [0.2, 0.5, 0.1, 0.4, 0.3]),
            GateRules(guardrails=[Guardrail(score="a")]),
        ).checks[0]  # fmt: skip
        assert (graded.lost, graded.mcnemar) == (None, None)
