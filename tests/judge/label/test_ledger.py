"""What people say is kept, joined, and written as records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from strop.data.records import preference
from strop.errors import DataError, UsageError
from strop.judge.label.ledger import Choice, Ledger
from strop.judge.trust.anchors import Anchor, read_anchors, read_pairs
from strop.types import Origin


def pairs(folder: Path, count: int = 4) -> list[Anchor]:
    file = folder / "pairs.jsonl"
    file.write_text(
        "".join(
            json.dumps({"id": n, "prompt": f"Question {n}?", "answers": [f"a{n}", f"b{n}"]}) + "\n"
            for n in range(count)
        )
    )
    return read_pairs(file)


def says(ledger: Ledger, person: str, item: str, better: str) -> None:
    """The person finds the answer with this text better, wherever it is shown."""
    shown = ledger.shown(person, int(item))
    assert shown is not None
    choice: Choice = "first" if shown.answers[0] == better else "second"
    ledger.say(person, item, choice)


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_labels_become_preferences_and_anchors_whichever_answer_was_shown_first(
    tmp_path: Path,
) -> None:
    ledger = Ledger(pairs(tmp_path, 40), tmp_path / "out")
    for n in range(40):
        says(ledger, "anna", str(n), f"{'ab'[n % 3 == 0]}{n}")
        if n < 10:
            says(ledger, "bert", str(n), f"a{n}")
    ledger.say("bert", "10", "tie")
    ledger.say("bert", "11", "skip")
    anchors = read_anchors(tmp_path / "out/anchors.jsonl")
    human = [one.human for one in anchors]
    assert human[:4] == [(0.0, 1.0), (1.0, 1.0), (1.0, 1.0), (0.0, 1.0)]
    assert human[10:13] == [(1.0, 0.5), (1.0, None), (0.0, None)]
    kept = rows(tmp_path / "out/preferences.jsonl")
    # where two people say different things nobody has decided
    assert [int(row["id"]) for row in kept] == [*(n for n in range(10) if n % 3), *range(11, 40)]
    for row in kept:
        record = preference(row, Origin("out", 1))
        n = int(row["id"])
        wanted = (f"b{n}", f"a{n}") if n % 3 == 0 else (f"a{n}", f"b{n}")
        assert (record.chosen, record.rejected) == wanted
    assert [(row["people"], row["agreeing"]) for row in kept[:1]] == [(2, 2)]
    found = ledger.agreement()
    assert found is not None
    assert found.items == 11
    assert found.observed.mean == pytest.approx(6 / 11)


def test_either_answer_is_shown_first_about_as_often(tmp_path: Path) -> None:
    ledger = Ledger(pairs(tmp_path, 400), tmp_path / "out")
    turned = {
        person: [shown.turned for n in range(400) if (shown := ledger.shown(person, n))]
        for person in ("anna", "bert")
    }
    assert 160 < sum(turned["anna"]) < 240
    same = sum(a == b for a, b in zip(turned["anna"], turned["bert"], strict=True))
    assert 160 < same < 240  # each person has an order of their own


def test_a_label_is_taken_back_by_another(tmp_path: Path) -> None:
    ledger = Ledger(pairs(tmp_path), tmp_path / "out")
    says(ledger, "anna", "0", "a0")
    says(ledger, "anna", "0", "b0")
    assert ledger.done("anna") == 1
    assert [row["chosen"] for row in rows(tmp_path / "out/preferences.jsonl")] == ["b0"]
    again = Ledger(pairs(tmp_path), tmp_path / "out")
    shown = again.shown("anna", 0)
    assert shown is not None
    assert again.given("anna", shown) == ("first" if shown.answers[0] == "b0" else "second")
    following = again.shown("anna")
    assert following is not None
    assert following.number == 1


def test_a_torn_last_line_is_cut_off_and_the_next_label_stands_alone(tmp_path: Path) -> None:
    ledger = Ledger(pairs(tmp_path), tmp_path / "out")
    says(ledger, "anna", "0", "a0")
    says(ledger, "anna", "1", "b1")
    journal = tmp_path / "out/labels.jsonl"
    text = journal.read_text()
    for torn in (text[:-1], text[:-20]):
        journal.write_text(torn)
        again = Ledger(pairs(tmp_path), tmp_path / "out")
        assert again.done("anna") == 1
        says(again, "anna", "1", "a1")
        assert [row["item"] for row in rows(journal)] == ["0", "1"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("not json", "labels.jsonl:1: the line is no label"),
        ('{"item": "0", "person": "anna", "label": "C", "pair": "x"}', "the label 'C' is none"),
        ('{"item": "9", "person": "anna", "label": "A", "pair": "x"}', "which is not among these"),
        ('{"item": "0", "person": "anna", "label": "A", "pair": "x"}', "which is not among these"),
    ],
)
def test_labels_of_other_pairs_are_refused(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/labels.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=said.replace(".", r"\.")):
        Ledger(pairs(tmp_path), tmp_path / "out")


@pytest.mark.parametrize("name", ["", " ", "a" * 41, "../x", "<b>"])
def test_a_name_is_a_name(tmp_path: Path, name: str) -> None:
    ledger = Ledger(pairs(tmp_path), tmp_path / "out")
    with pytest.raises(UsageError, match="the name is none"):
        ledger.named(name)


def test_one_person_has_one_name(tmp_path: Path) -> None:
    ledger = Ledger(pairs(tmp_path), tmp_path / "out")
    assert ledger.named(" Anna  Berg ") == "Anna Berg"
    ledger.say("Anna Berg", "0", "first")
    assert ledger.named("Anna Berg") == "Anna Berg"
    with pytest.raises(UsageError, match="'Anna Berg' labels here already"):
        ledger.named("anna berg")


def test_what_was_given_is_what_is_trained_on(tmp_path: Path) -> None:
    """Thoughts, calls and tools are not shown, and are in the record."""
    call = {"id": "c", "type": "function", "function": {"name": "river", "arguments": "{}"}}
    asked = [{"role": "user", "content": "Which river?"}]
    rich = [{"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "Rhine", "tool_call_id": "c"},
            {"role": "assistant", "content": "<think>so</think>The Rhine."}]  # fmt: skip
    tools = [{"type": "function", "function": {"name": "river", "parameters": {}}}]
    row = {"prompt": asked, "chosen": rich, "rejected": "Rain.", "tools": tools, "own": "A",
           "topic": "rivers"}  # fmt: skip
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(row) + "\n")
    found = read_pairs(file)
    ledger = Ledger(found, tmp_path / "out")
    shown = ledger.shown("anna")
    assert shown is not None
    assert not any("<think>" in answer for answer in shown.answers)
    rain = shown.answers.index("Rain.")
    ledger.say("anna", found[0].question.item, "second" if rain == 0 else "first")
    [kept] = rows(tmp_path / "out/preferences.jsonl")
    assert (kept["tools"], kept["topic"], kept["rejected"]) == (
        tools, "rivers", [{"role": "assistant", "content": "Rain."}],
    )  # fmt: skip
    assert kept["chosen"][-1]["content"] == "<think>so</think>The Rhine."
    assert preference(kept, Origin("out", 1)).chosen == found[0].given[found[0].chosen or 0]
    [anchor] = read_anchors(tmp_path / "out/anchors.jsonl")
    assert (anchor.own, anchor.human) == (found[0].own, found[0].human)


def test_a_conversation_keeps_its_form(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Faust?"}]
    file.write_text(json.dumps({"prompt": asked, "answers": ["Goethe.", "Kafka."]}) + "\n")
    found = read_pairs(file)
    ledger = Ledger(found, tmp_path / "out")
    says_first = ledger.shown("anna")
    assert says_first is not None
    better: Choice = "second" if says_first.turned else "first"
    ledger.say("anna", found[0].question.item, better)
    [row] = rows(tmp_path / "out/preferences.jsonl")
    assert row["prompt"] == asked
    assert row["chosen"] == [{"role": "assistant", "content": "Goethe."}]
