"""The gate on folders and plain files, the registry behind it, and its exit codes."""

from __future__ import annotations

import html
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from strop.cli.app import app
from strop.errors import DataError, MissingEvidenceError, RegistryError
from strop.evals.gate import gate
from strop.evals.gate.page import forest
from strop.evals.gate.verdict import read_verdict, run_gate
from strop.evals.records import read_records, write_records
from strop.recipe.gate import GateRules, Guardrail, Target
from strop.registry.lineage import generations
from strop.registry.store import Registry
from strop.types import EvalRecord
from tests.support.gates import POLICY, records, scores

PASS = {"name": "pass", "sentence": "Pass.", "candidate": {"sha256": "w1"}}


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

    POLICY = GateRules(targets=[Target(score="a")])

    def test_a_changed_suite_is_no_evidence(self, tmp_path: Path) -> None:
        base = self.write(tmp_path / "a", [0.0] * 20)
        other = self.write(tmp_path / "b", [1.0] * 20, suite_sha256="s2")
        with pytest.raises(MissingEvidenceError, match=r"the suite changed .*s1 and s2"):
            run_gate(self.POLICY, base, other)
        with pytest.raises(MissingEvidenceError, match="the suite changed"):
            run_gate(self.POLICY, base, base, noise=[other])

    def test_figures_against_two_references_do_not_compare(self, tmp_path: Path) -> None:
        policy = GateRules(guardrails=[Guardrail(score="drift/a/held")])
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
