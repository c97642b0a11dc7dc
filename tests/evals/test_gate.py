"""The gate: what is proven, what is noise, what could not be scored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from strop.cli.app import app
from strop.errors import MissingEvidenceError, RecipeError
from strop.evals.gate import gate
from strop.evals.gate.judge import counted
from strop.evals.gate.verdict import read_verdict
from strop.recipe.gate import Band, GateRules, Guardrail, Target
from strop.recipe.loading.load import load
from strop.types import EvalRecord
from tests.support.gates import POLICY, records, scores


class TestGate:
    def test_pass_needs_target_and_guardrails(self) -> None:
        base = records("a", scores(100, 100)) + records("b", scores(150, 50))
        better = records("a", scores(150, 50)) + records("b", scores(151, 49))
        verdict = gate(base, better, POLICY)
        assert verdict.name == "pass"
        assert verdict.sentence.startswith("Pass: a rose from 0.500 to 0.750 (+0.250, 95 %")
        assert "b did not get worse" in verdict.sentence
        broken = records("a", scores(150, 50)) + records("b", scores(110, 90))
        verdict = gate(base, broken, POLICY)
        assert verdict.name == "regressed"
        assert verdict.sentence.startswith("Regressed: b fell from 0.750 to 0.550")

    def test_inconclusive_says_how_many_it_would_take(self) -> None:
        base = records("a", [*scores(10, 10)])
        candidate = records("a", [1.0] * 8 + [0.0] * 2 + [1.0] * 6 + [0.0] * 4)
        verdict = gate(base, candidate, GateRules(targets=[Target(score="a")]))
        assert verdict.name == "inconclusive"
        needed = verdict.checks[0].n_needed
        assert needed is not None
        assert needed > 20
        assert f"About {needed} items would decide it" in verdict.sentence

    def test_several_targets_are_held_to_holms_levels(self) -> None:
        """One gain that passes alone fails beside others, once the level is shared."""
        base = records("a", scores(0, 40))
        slight = records("a", scores(6, 34))
        alone = GateRules(targets=[Target(score="a")])
        assert gate(base, slight, alone).name == "pass"
        names = ["a", *"cdefgh"]
        both = [record for n in names for record in records(n, scores(0, 40))]
        gained = [record for n in names for record in records(n, scores(6, 34))]
        shared = GateRules(targets=[Target(score=n) for n in names])
        assert gate(both, gained, shared).name == "inconclusive"

    def test_samples_of_an_item_are_one_cluster(self) -> None:
        def sampled(values: list[float]) -> list[EvalRecord]:
            return [
                EvalRecord("a", str(i // 2), v, str(i // 2), sample=i % 2)
                for i, v in enumerate(values)
            ]

        verdict = gate(
            sampled([0.0, 0.0, 1.0, 1.0] * 20), sampled([1.0, 1.0, 1.0, 1.0] * 20),
            GateRules(targets=[Target(score="a")]),
        )  # fmt: skip
        assert verdict.checks[0].method == "cluster-t"

    def test_items_and_their_samples_are_named_apart(self) -> None:
        """Eight items with four samples each are not 32 items, nor are so many needed."""
        values = [float(n % 4 < k) for n, k in zip(range(32), [2] * 16 + [1] * 16, strict=True)]
        better = [*values[:30], 1.0, 1.0]
        base, candidate = (
            [
                EvalRecord("a", f"i{n // 4}", v, f"i{n // 4}", sample=n % 4)
                for n, v in enumerate(side)
            ]
            for side in (values, better)
        )
        verdict = gate(base, candidate, GateRules(targets=[Target(score="a")]))
        (check,) = verdict.checks
        assert (check.n, check.items) == (32, 8)
        assert counted(check, check.n) == "32 answers (8 items with 4 samples each)"
        assert check.n_needed is not None
        assert f"About {counted(check, check.n_needed)} would decide it." in verdict.sentence
        assert f"({-(-check.n_needed // 4)} items with 4 samples each)" in verdict.sentence

    def test_dependent_samples_do_not_pass_by_chance(self) -> None:
        """Nothing is different between the two, and the four samples of an item go the same way: at
        most one in forty may pass. Taken for independent they would pass far more often."""
        draws = np.random.default_rng(11)
        passed = taken_apart = 0
        rules = GateRules(targets=[Target(score="a")])
        for _ in range(200):
            sides = []
            for chances in draws.random((2, 30)):
                whole = np.repeat(chances < 0.5, 4).astype(float)
                flipped = np.where(draws.random(120) < 0.05, 1 - whole, whole)
                sides.append(flipped.tolist())
            grouped, single = (
                [
                    [EvalRecord("a", f"i{n // size}", v, f"i{n // size}", sample=n % size)
                     for n, v in enumerate(side)]
                    for side in sides
                ]
                for size in (4, 1)
            )  # fmt: skip
            passed += gate(*grouped, rules).name == "pass"
            taken_apart += gate(*single, rules).name == "pass"
        assert passed <= 200 * 0.025 + 3 * (200 * 0.025 * 0.975) ** 0.5
        assert taken_apart > 200 * 0.1

    @pytest.mark.parametrize(
        ("base", "candidate", "message"),
        [
            (scores(5, 5), scores(5, 4), "1 only in base, 0 only in candidate"),
            (scores(5, 5), [*scores(5, 4), None], "1 of 10 items could not be scored"),
            ([1.0], [1.0], "one item proves nothing"),
        ],
    )
    def test_missing_evidence(self, base: Any, candidate: Any, message: str) -> None:
        with pytest.raises(MissingEvidenceError, match=message) as caught:
            gate(
                records("a", base), records("a", candidate), GateRules(targets=[Target(score="a")])
            )
        assert caught.value.exit_code == 12

    def test_clusters_of_either_side_count(self) -> None:
        """Twenty items in five clusters, said by one file only; other clusters are no evidence."""
        plain = records("a", [0.0] * 20)
        grouped = [EvalRecord("a", str(i), float(i % 5 > 0), f"c{i % 5}") for i in range(20)]
        policy = GateRules(targets=[Target(score="a")])
        for base, candidate in ((plain, grouped), (grouped, plain)):
            assert gate(base, candidate, policy).checks[0].method != "tango"
        others = [EvalRecord("a", str(i), 1.0, f"d{i % 5}") for i in range(20)]
        with pytest.raises(MissingEvidenceError, match="cluster 'c0' in base and 'd0'"):
            gate(grouped, others, policy)

    def test_unknown_scores_duplicates_and_empty_policies(self) -> None:
        given = records("a", scores(2, 2))
        with pytest.raises(MissingEvidenceError, match=r"no scores named 'z'[\s\S]*it has a"):
            gate(given, given, GateRules(targets=[Target(score="z")]))
        with pytest.raises(MissingEvidenceError, match="item '0' appears twice"):
            gate(given + given[:1], given, GateRules(targets=[Target(score="a")]))

    def test_policies_that_demand_nothing_or_twice(self, tmp_path: Path) -> None:
        (tmp_path / "none.yaml").write_text("alpha: 0.05\n")
        with pytest.raises(RecipeError, match="demands nothing"):
            load(GateRules, tmp_path / "none.yaml")
        (tmp_path / "twice.yaml").write_text("targets: [{score: a}, {score: a, min_gain: 0.1}]\n")
        with pytest.raises(RecipeError, match="demanded twice: a"):
            load(GateRules, tmp_path / "twice.yaml")


def test_a_policy_may_have_a_name_as_other_files_do(tmp_path: Path) -> None:
    """It stands in the verdict, on its page and in what is printed."""
    (tmp_path / "p.yaml").write_text("name: release\ntargets: [{score: score}]\n")
    for name, right in (("a", 20), ("b", 60)):
        rows = [{"item": i, "score": float(i < right)} for i in range(80)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [
        "--policy",
        "p.yaml",
        "--base",
        "a.jsonl",
        "--candidate",
        "b.jsonl",
        "--output",
        "v.json",
    ]
    paths = [str(tmp_path / one) if "." in one else one for one in given]
    result = CliRunner().invoke(app, ["gate", *paths, "--registry", str(tmp_path / "r.db")])
    assert result.output.startswith("policy release\nPass: ")
    assert read_verdict(tmp_path / "v.json")["policy"]["name"] == "release"
    assert "Policy: release" in (tmp_path / "v.html").read_text()


class TestNoise:
    """Base and A/A runs differ by retraining alone."""

    BASE = tuple(scores(100, 100))
    GAINED = tuple(scores(120, 80))
    LOST = (*[0.0] * 20, *[1.0] * 80, *[0.0] * 100)

    def judged(self, candidate: Sequence[float | None], again: Sequence[float | None]) -> Any:
        return gate(
            records("a", self.BASE),
            records("a", candidate),
            GateRules(targets=[Target(score="a")], guardrails=[Guardrail(score="a", margin=0.01)]),
            noise=[records("a", again)],
        )

    def test_a_gain_within_it_is_none(self) -> None:
        assert gate(records("a", self.BASE), records("a", self.GAINED),
                    GateRules(targets=[Target(score="a")])).name == "pass"  # fmt: skip
        verdict = self.judged(self.GAINED, self.GAINED)
        assert verdict.name == "inconclusive"
        assert verdict.checks[0].floor > verdict.checks[0].estimate == pytest.approx(0.1)
        assert "not clear of the noise floor of 0." in verdict.sentence

    def test_so_is_a_loss(self) -> None:
        assert self.judged(self.LOST, self.BASE).name == "regressed"
        assert self.judged(self.LOST, self.LOST).name == "inconclusive"

    def test_the_floor_is_the_far_end_of_the_interval_of_the_runs_that_differ_by_nothing(
        self,
    ) -> None:
        """With no flip in n items Tango's interval reaches z^2 / (n + z^2)."""
        verdict = self.judged(self.GAINED, self.BASE)
        z2 = 1.959964**2
        assert verdict.checks[0].floor == pytest.approx(z2 / (200 + z2), abs=1e-6)
        assert verdict.name == "pass"


class TestBands:
    def test_lengths_may_move_neither_way(self) -> None:
        lengths = [10.0 + i % 7 for i in range(100)]
        policy = GateRules(bands=[Band(score="a", low=0.9, high=1.1)])
        for factor, expected in ((1.0, "pass"), (1.02, "pass"), (1.3, "regressed"),
                                 (0.7, "regressed"), (1.1, "inconclusive")):  # fmt: skip
            changed = [factor * x + 0.3 * (-1) ** i for i, x in enumerate(lengths)]
            verdict = gate(records("a", lengths), records("a", changed), policy)
            assert verdict.name == expected, factor
            assert verdict.checks[0].estimate == pytest.approx(factor, abs=0.01)
        assert "allowed 0.9 to 1.1" in verdict.sentence


class TestUnscored:
    def test_they_count_against_the_candidate(self) -> None:
        """Two of 100 on each side: the candidate's as wrong, the base's as right."""
        base: list[float | None] = [None, None, *scores(48, 50)]
        candidate: list[float | None] = [1.0, 1.0, None, None, *scores(46, 50)]
        policy = GateRules(guardrails=[Guardrail(score="a", margin=0.2)], max_unscored=0.04)
        verdict = gate(records("a", base), records("a", candidate), policy)
        assert verdict.checks[0].base == pytest.approx(0.50)
        assert verdict.checks[0].candidate == pytest.approx(0.48)
        assert verdict.remarks == (
            "a: 4 of 100 items could not be scored and count against the candidate",
        )
        stricter = policy.model_copy(update={"max_unscored": 0.03})
        with pytest.raises(MissingEvidenceError, match="4 of 100 items could not be scored"):
            gate(records("a", base), records("a", candidate), stricter)

    def test_nothing_scored_at_all(self) -> None:
        nothing = records("a", [None] * 10)
        lenient = GateRules(guardrails=[Guardrail(score="a")], max_unscored=0.49)
        with pytest.raises(MissingEvidenceError, match="10 of 10"):
            gate(nothing, nothing, lenient)
