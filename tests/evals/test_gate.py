"""The gate, the registry behind it, and their exit codes on plain files."""

from __future__ import annotations

import html
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from strop.cli.app import app
from strop.errors import DataError, MissingEvidenceError, RecipeError, RegistryError
from strop.evals.gate import gate
from strop.evals.gate.page import forest
from strop.evals.gate.verdict import read_verdict, run_gate
from strop.evals.records import read_records, write_records
from strop.recipe.gate import Band, Guardrail, Policy, Target
from strop.recipe.loading.load import load
from strop.registry.lineage import generations
from strop.registry.store import Registry
from strop.types import EvalRecord

PASS = {"name": "pass", "sentence": "Pass.", "candidate": {"sha256": "w1"}}


def records(task: str, scores: Sequence[float | None]) -> list[EvalRecord]:
    return [EvalRecord(task, str(i), score, str(i)) for i, score in enumerate(scores)]


def scores(right: int, wrong: int) -> list[float | None]:
    return [1.0] * right + [0.0] * wrong


POLICY = Policy(targets=[Target(score="a")], guardrails=[Guardrail(score="b", margin=0.05)])


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
        verdict = gate(base, candidate, Policy(targets=[Target(score="a")]))
        assert verdict.name == "inconclusive"
        needed = verdict.checks[0].n_needed
        assert needed is not None
        assert needed > 20
        assert f"About {needed} items would decide it" in verdict.sentence

    def test_several_targets_are_held_to_holms_levels(self) -> None:
        """One gain that passes alone fails beside others, once the level is shared."""
        base = records("a", scores(0, 40))
        slight = records("a", scores(6, 34))
        alone = Policy(targets=[Target(score="a")])
        assert gate(base, slight, alone).name == "pass"
        names = ["a", *"cdefgh"]
        both = [record for n in names for record in records(n, scores(0, 40))]
        gained = [record for n in names for record in records(n, scores(6, 34))]
        shared = Policy(targets=[Target(score=n) for n in names])
        assert gate(both, gained, shared).name == "inconclusive"

    def test_samples_of_an_item_are_one_cluster(self) -> None:
        def sampled(values: list[float]) -> list[EvalRecord]:
            return [
                EvalRecord("a", str(i // 2), v, str(i // 2), sample=i % 2)
                for i, v in enumerate(values)
            ]

        verdict = gate(
            sampled([0.0, 0.0, 1.0, 1.0] * 20), sampled([1.0, 1.0, 1.0, 1.0] * 20),
            Policy(targets=[Target(score="a")]),
        )  # fmt: skip
        assert verdict.checks[0].method == "cluster-t"

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
            gate(records("a", base), records("a", candidate), Policy(targets=[Target(score="a")]))
        assert caught.value.exit_code == 12

    def test_clusters_of_either_side_count(self) -> None:
        """Twenty items in five clusters, said by one file only; other clusters are no evidence."""
        plain = records("a", [0.0] * 20)
        grouped = [EvalRecord("a", str(i), float(i % 5 > 0), f"c{i % 5}") for i in range(20)]
        policy = Policy(targets=[Target(score="a")])
        for base, candidate in ((plain, grouped), (grouped, plain)):
            assert gate(base, candidate, policy).checks[0].method != "tango"
        others = [EvalRecord("a", str(i), 1.0, f"d{i % 5}") for i in range(20)]
        with pytest.raises(MissingEvidenceError, match="cluster 'c0' in base and 'd0'"):
            gate(grouped, others, policy)

    def test_unknown_scores_duplicates_and_empty_policies(self) -> None:
        given = records("a", scores(2, 2))
        with pytest.raises(MissingEvidenceError, match=r"no scores named 'z'[\s\S]*it has a"):
            gate(given, given, Policy(targets=[Target(score="z")]))
        with pytest.raises(MissingEvidenceError, match="item '0' appears twice"):
            gate(given + given[:1], given, Policy(targets=[Target(score="a")]))

    def test_policies_that_demand_nothing_or_twice(self, tmp_path: Path) -> None:
        (tmp_path / "none.yaml").write_text("alpha: 0.05\n")
        with pytest.raises(RecipeError, match="demands nothing"):
            load(Policy, tmp_path / "none.yaml")
        (tmp_path / "twice.yaml").write_text("targets: [{score: a}, {score: a, min_gain: 0.1}]\n")
        with pytest.raises(RecipeError, match="demanded twice: a"):
            load(Policy, tmp_path / "twice.yaml")


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
            Policy(targets=[Target(score="a")], guardrails=[Guardrail(score="a", margin=0.01)]),
            noise=[records("a", again)],
        )

    def test_a_gain_within_it_is_none(self) -> None:
        assert gate(records("a", self.BASE), records("a", self.GAINED),
                    Policy(targets=[Target(score="a")])).name == "pass"  # fmt: skip
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
        policy = Policy(bands=[Band(score="a", low=0.9, high=1.1)])
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
        policy = Policy(guardrails=[Guardrail(score="a", margin=0.2)], max_unscored=0.04)
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
        lenient = Policy(guardrails=[Guardrail(score="a")], max_unscored=0.49)
        with pytest.raises(MissingEvidenceError, match="10 of 10"):
            gate(nothing, nothing, lenient)


class TestScales:
    """Scores of one name on two scales prove nothing; big differences on one scale do."""

    POLICY = Policy(targets=[Target(score="a")])

    def judged(
        self, base: Sequence[float | None], candidate: Sequence[float | None],
        policy: Policy = POLICY, /, **declared: Any,
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
        policy = Policy(targets=[Target(score="a", scale=(0.0, None))])
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
        verdict = gate(self.grouped(base), self.grouped(after), Policy(targets=[Target(score="a")]))
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
        check = gate(base, swapped, Policy(guardrails=[Guardrail(score="a")])).checks[0]
        assert (check.lost, check.gained, check.churn) == (30, 30, 0.3)
        assert check.estimate == 0.0
        assert check.mcnemar == pytest.approx(1.0)
        graded = gate(
            records("a", [0.1, 0.5, 0.2, 0.4, 0.3]), records("a", [0.2, 0.5, 0.1, 0.4, 0.3]),
            Policy(guardrails=[Guardrail(score="a")]),
        ).checks[0]  # fmt: skip
        assert (graded.lost, graded.mcnemar) == (None, None)


class TestFolders:
    """Evals as `strop eval` writes them."""

    def write(self, folder: Path, values: Sequence[float], **summary: Any) -> Path:
        folder.mkdir()
        rows = [
            EvalRecord("a", str(i), v, str(i), prompt=f"<b>question {i}</b>", output=f"says {v}")
            for i, v in enumerate(values)
        ]
        write_records(folder / "records.jsonl", rows)
        given = {"suite": "final", "suite_sha256": "s1", "model": {"sha256": folder.name}}
        (folder / "summary.json").write_text(json.dumps({**given, **summary}))
        return folder

    POLICY = Policy(targets=[Target(score="a")])

    def test_a_changed_suite_is_no_evidence(self, tmp_path: Path) -> None:
        base = self.write(tmp_path / "a", [0.0] * 20)
        other = self.write(tmp_path / "b", [1.0] * 20, suite_sha256="s2")
        with pytest.raises(MissingEvidenceError, match=r"the suite changed .*s1 and s2"):
            run_gate(self.POLICY, base, other)
        with pytest.raises(MissingEvidenceError, match="the suite changed"):
            run_gate(self.POLICY, base, base, noise=[other])

    def test_figures_against_two_references_do_not_compare(self, tmp_path: Path) -> None:
        policy = Policy(guardrails=[Guardrail(score="drift/a/held")])
        base = self.write(tmp_path / "a", [0.0] * 20, reference={"sha256": "r1"})
        other = self.write(tmp_path / "b", [1.0] * 20, reference={"sha256": "r2"})
        with pytest.raises(MissingEvidenceError, match="the two evals had different ones"):
            run_gate(policy, base, other)
        assert run_gate(self.POLICY, base, other).name == "pass"

    def test_items_that_were_trained_on(self, tmp_path: Path) -> None:
        base = self.write(tmp_path / "a", [0.0] * 20)
        seen = {"task": "a", "of": 20, "items": [{"item": "7", "where": "sft.jsonl:3"}]}
        other = self.write(tmp_path / "b", [1.0] * 20, overlap=[seen])
        message = r"a: 1 of 20 items are in the training data \(item 7 at sft.jsonl:3\)"
        with pytest.raises(MissingEvidenceError, match=message):
            run_gate(self.POLICY, base, other)
        lenient = self.POLICY.model_copy(update={"refuse_overlap": False})
        verdict = run_gate(lenient, base, other)
        assert verdict.name == "pass"
        assert "1 of 20 items are in the training data" in verdict.remarks[0]

    def test_every_look_is_recorded_and_a_sealed_one_said(self, tmp_path: Path) -> None:
        registry = tmp_path / "registry.db"
        base = self.write(tmp_path / "a", [0.0] * 20, sealed=True)
        first = self.write(tmp_path / "b", [0.0, 1.0] * 10, sealed=True)
        second = self.write(tmp_path / "c", [1.0] * 20, sealed=True)
        assert run_gate(self.POLICY, base, first, registry=registry).remarks == ()
        verdict = run_gate(self.POLICY, base, second, tmp_path / "v.json", registry=registry)
        assert verdict.remarks[0].startswith("look 2 at the sealed suite final")
        assert "look 2 at the sealed suite" in (tmp_path / "v.html").read_text()
        seen = [(a.candidate, a.sealed, a.verdict, a.look) for a in Registry(registry).attempts()]
        assert seen == [("b", True, "pass", 1), ("c", True, "pass", 2)]

    def test_the_page_says_it_in_order(self, tmp_path: Path) -> None:
        base = self.write(tmp_path / "a", [0.0] * 40 + [1.0] * 40)
        other = self.write(tmp_path / "b", [1.0] * 30 + [0.0] * 10 + [0.0] * 3 + [1.0] * 37)
        verdict = run_gate(self.POLICY, base, other, tmp_path / "out/v.json")
        page = (tmp_path / "out/v.html").read_text()
        places = [page.index(text) for text in (
            "May be promoted", html.escape(verdict.sentence), "<svg", "<table>",
            "Lost: a", "&lt;b&gt;question 40&lt;/b&gt;", "says 1.0", "says 0.0", "Won: a",
            "&lt;b&gt;question 0&lt;/b&gt;",
        )]  # fmt: skip
        assert places == sorted(places)
        assert "<b>question" not in page
        assert "http" not in page
        written = read_verdict(tmp_path / "out/v.json")
        assert written["candidate"] == {"sha256": "b"}
        assert written["evals"]["base"]["records"] == 80

    def test_the_plot_keeps_to_its_scale(self, tmp_path: Path) -> None:
        checks = gate(
            records("a", scores(50, 50)) + records("b", scores(90, 10)),
            records("a", scores(80, 20)) + records("b", scores(80, 20)),
            POLICY,
        ).checks
        rows = forest(checks)
        assert [row.check.name for row in rows] == ["a", "b"]
        scale = rows[0].estimate / checks[0].estimate
        for row in rows:
            assert row.estimate == pytest.approx(row.check.estimate * scale)
            assert row.low == pytest.approx(row.check.low * scale)
            assert row.bounds == (pytest.approx(row.check.bound * scale),)
        assert max(abs(row.high) for row in rows) <= 300


class TestPlainFiles:
    def write(self, folder: Path, name: str, values: Sequence[Any]) -> Path:
        path = folder / name
        rows = [{"item": i, "score": value} for i, value in enumerate(values)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    @pytest.mark.parametrize(
        ("candidate", "code", "word"),
        [
            (scores(300, 100), 0, "Pass"),
            (scores(200, 200), 10, "Regressed"),
            ([0.0] * 20 + scores(280, 80) + [1.0] * 20, 11, "Inconclusive"),
            (scores(300, 99), 12, "different items"),
            ([*scores(300, 99), None], 12, "could not be scored"),
        ],
    )
    def test_exit_codes(self, tmp_path: Path, candidate: Any, code: int, word: str) -> None:
        base = self.write(tmp_path, "A.jsonl", scores(300, 100))
        other = self.write(tmp_path, "B.jsonl", candidate)
        result = CliRunner().invoke(
            app,
            [
                "gate",
                "--base",
                str(base),
                "--candidate",
                str(other),
                "--margin",
                "0.03",
                "--registry",
                str(tmp_path / "r.db"),
            ],
        )
        said = result.output + str(result.exception or "")
        assert (result.exit_code if code < 12 else result.exception.exit_code) == code, said  # type: ignore[union-attr]
        assert word in said

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{", "s.jsonl:2: broken JSON"),
            ('{"score": 1}', "s.jsonl:2: the row has no item or no score"),
            ('{"item": 1, "score": "high"}', "s.jsonl:2: score 'high' is not"),
            ('{"item": 1, "score": Infinity}', "s.jsonl:2: score inf is not"),
            ("[1]", "s.jsonl:2: the row has no item"),
        ],
    )
    def test_bad_rows(self, tmp_path: Path, line: str, message: str) -> None:
        path = tmp_path / "s.jsonl"
        path.write_text('{"item": 0, "score": 1}\n' + line + "\n")
        with pytest.raises(DataError, match=message.replace(".", r"\.")):
            read_records(path)


class TestRegistry:
    def promote(self, registry: Registry, weights: str, **options: Any) -> Any:
        verdict = {**PASS, "candidate": {"sha256": weights}}
        given = {"path": f"/m/{weights}", "lineage": {"model": weights}, "verdict": verdict}
        return registry.promote("algebra", weights=weights, **{**given, **options})

    def test_promote_and_roll_back(self, tmp_path: Path) -> None:
        registry = Registry(tmp_path / "r.db")
        first, second = self.promote(registry, "w1"), self.promote(registry, "w2")
        assert registry.current("algebra") == second
        assert registry.rollback("algebra", "slow") == first
        assert registry.current("algebra") == first
        with pytest.raises(RegistryError, match="no earlier promotion"):
            registry.rollback("algebra")
        third = self.promote(registry, "w3")
        assert registry.rollback("algebra") == first
        actions = [(event.action, event.entry) for event in registry.events()]
        assert actions == [
            ("promote", first.id), ("promote", second.id), ("rollback", first.id),
            ("promote", third.id), ("rollback", first.id),
        ]  # fmt: skip
        assert registry.events()[2].reason == "slow"

    @pytest.mark.parametrize(
        ("verdict", "message"),
        [
            (None, "a promotion needs a verdict"),
            ({**PASS, "name": "inconclusive"}, "the gate said inconclusive"),
            ({**PASS, "candidate": {"sha256": "other"}}, "for other weights"),
            ({**PASS, "candidate": None}, "for other weights"),
        ],
    )
    def test_no_promotion_without_proof(self, tmp_path: Path, verdict: Any, message: str) -> None:
        registry = Registry(tmp_path / "r.db")
        with pytest.raises(RegistryError, match=message):
            self.promote(registry, "w1", verdict=verdict)
        assert not registry.path.exists()

    def test_an_override_is_recorded_with_its_reason(self, tmp_path: Path) -> None:
        registry = Registry(tmp_path / "r.db")
        with pytest.raises(RegistryError, match="needs a reason"):
            self.promote(registry, "w1", verdict=None, override=" ")
        entry = self.promote(registry, "w1", verdict=None, override="demo for a customer")
        assert entry.verdict is None
        assert registry.events()[0].reason == "demo for a customer"

    def test_the_file_is_append_only(self, tmp_path: Path) -> None:
        registry = Registry(tmp_path / "r.db")
        self.promote(registry, "w1")
        with sqlite3.connect(registry.path) as db:
            for change in ("DELETE FROM events", "UPDATE entries SET weights = 'w9'"):
                with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                    db.execute(change)

    def test_lookups(self, tmp_path: Path) -> None:
        registry = Registry(tmp_path / "r.db")
        with pytest.raises(RegistryError, match="no registry here yet"):
            registry.entry("algebra")
        entry = self.promote(registry, "w1")
        assert registry.entry(entry.id[:6]) == registry.entry("algebra") == entry
        with pytest.raises(RegistryError, match="no entry or name begins with 'zz'"):
            registry.entry("zz")

    def test_a_file_that_is_no_registry(self, tmp_path: Path) -> None:
        path = tmp_path / "r.db"
        path.write_text("not a database " * 100)
        with pytest.raises(RegistryError, match="cannot be used"):
            Registry(path).entries()

    def test_generations_start_at_the_oldest(self) -> None:
        line = {"model": "c", "parent": {"model": "b", "parent": {"model": "a"}}}
        assert [made["model"] for made in generations(line)] == ["a", "b", "c"]
