"""What a reviewer asks is answered from the lineage, or left blank."""

from __future__ import annotations

import json
from typing import Any

import pytest

from strop.registry.compliance import BLANK, compliance, compliance_text, operations
from strop.registry.records import Entry

SPENT = {"parameters": 1000, "tokens": 500, "sampled": 200}
MADE: dict[str, Any] = {
    "model": "runs/dpo/final",
    "method": "dpo",
    "spent": SPENT,
    "data": [{"path": "pairs.jsonl", "sha256": "aa", "rows": 40,
              "manifest": {"made_by": "strop data split", "before": ["strop data clean"],
                           "path": "m.json", "sha256": "cc", "unchanged": True}}],
    "parent": {
        "model": "runs/sft/final", "method": "sft", "spent": SPENT,
        "data": [{"path": "sft.jsonl", "sha256": "bb"}],
        "parent": {"model": "SmolLM2-135M"},
    },
}  # fmt: skip
VERDICT = {"name": "pass", "sentence": "Pass: better.", "checks": [
    {"name": "right", "base": 0.5, "candidate": 0.7},
    {"name": "knowledge", "base": 0.75, "candidate": 0.74},
]}  # fmt: skip


def entry(made: dict[str, Any] = MADE, verdict: dict[str, Any] | None = VERDICT) -> Entry:
    return Entry("3f9a12c4d5e6", "w", "runs/dpo/final", made, verdict, {}, "ana", "2026-11-28")


def answers(given: Entry) -> dict[str, str]:
    return {line.question: line.answer for line in compliance(given)}


def test_answers_come_from_the_lineage() -> None:
    said = answers(entry())
    assert said["Base model"] == "SmolLM2-135M"
    assert said["How it was made"] == "the base -> sft -> dpo"
    assert "40 rows" in said["Data of dpo"]
    assert said["Where sft.jsonl comes from"] == BLANK
    assert said["Personal data"] == "strop data clean was run on 1 of 2 files"
    assert said["Evaluation"] == "Pass: better."
    assert said["Known to be worse than before"] == "knowledge fell from 0.75 to 0.74"


def test_compute_is_counted_by_hand() -> None:
    assert operations(SPENT) == 1000 * (6 * 500 + 2 * 200)
    said = answers(entry())
    assert said["Training compute"] == "about 6.8e+06 operations over 1,000 tokens"
    assert said["Is it a substantial modification?"].startswith("below a third")


def test_a_third_of_the_threshold_is_the_edge() -> None:
    for tokens, side in ((5.5e21, "below"), (5.6e21, "at or above")):
        spent = {"parameters": 1, "tokens": int(tokens), "sampled": 0}
        made = {**MADE, "spent": spent, "parent": {"model": "base"}}
        assert answers(entry(made))["Is it a substantial modification?"].startswith(side)


def test_what_is_not_known_is_blank() -> None:
    older = {**MADE, "parent": {**MADE["parent"], "spent": None}}
    older["parent"].pop("spent")
    said = answers(entry(older, None))
    assert said["Training compute"] == BLANK
    assert "Energy" not in said
    assert said["Evaluation"] == "promoted without a passing verdict"
    for question in ("Intended use", "Licence of the base model",
                     "Consent and legal basis of the data"):  # fmt: skip
        assert said[question] == BLANK


def test_every_line_says_where_it_comes_from() -> None:
    for given in (entry(), entry({"model": "m"}, None)):
        assert all(line.source for line in compliance(given))
        assert "no legal advice" in compliance_text(given)


@pytest.mark.parametrize("text", ["a | b", "two\nlines"])
def test_a_cell_stays_a_cell(text: str) -> None:
    rows = compliance_text(entry({"model": text}, None)).splitlines()
    assert all(row.count("|") - row.count("\\|") in (0, 4) for row in rows), rows


def test_the_same_entry_gives_the_same_lines() -> None:
    again = json.loads(json.dumps(MADE))
    assert compliance(entry()) == compliance(entry(again))
