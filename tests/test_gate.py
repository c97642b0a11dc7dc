"""The gate, the registry behind it, and their exit codes on plain files."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from strop.cli.app import app
from strop.errors import DataError, MissingEvidenceError, RecipeError, RegistryError
from strop.evals.gate import gate
from strop.evals.records import read_records
from strop.recipe.eval import Guardrail, Policy, Target
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

    def test_unknown_scores_duplicates_and_empty_policies(self) -> None:
        given = records("a", scores(2, 2))
        with pytest.raises(MissingEvidenceError, match=r"no scores named 'z'[\s\S]*it has a"):
            gate(given, given, Policy(targets=[Target(score="z")]))
        with pytest.raises(MissingEvidenceError, match="item '0' appears twice"):
            gate(given + given[:1], given, Policy(targets=[Target(score="a")]))
        with pytest.raises(RecipeError, match="demands nothing"):
            gate(given, given, Policy())


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
            app, ["gate", "--base", str(base), "--candidate", str(other), "--margin", "0.03"]
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
