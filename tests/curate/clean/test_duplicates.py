"""A record is a duplicate when all of it is; prompts are counted apart."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from strop.curate.clean.duplicates import find_duplicates, unique_records
from strop.types import (
    Demonstration,
    Document,
    Feedback,
    Origin,
    Preference,
    Record,
    Task,
    Text,
)
from tests.support import ROOT

HERE = Origin("a.jsonl", 1)
DATA = Path(os.environ.get("STROP_DATA", ROOT.parent / "shared/data"))
VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "prstz"]


def prose(seed: int, count: int = 30) -> str:
    return " ".join(random.Random(seed).choices(VOCABULARY, k=count))


def edited(text: str) -> str:
    first, *rest = text.split()
    return " ".join([first + "zz", *rest])


def first(*records: Record) -> list[int]:
    found: list[int] = find_duplicates(records).records.first.tolist()
    return found


def shown(prompt: Text, completion: Text, **columns: Any) -> Demonstration:
    return Demonstration(prompt, completion, columns, HERE)


def pair(prompt: str, chosen: str, rejected: str) -> Preference:
    return Preference(prompt, chosen, rejected, {}, HERE)


def test_prompt_and_answer_have_to_repeat_each_other_both() -> None:
    long, other = prose(0), prose(1)
    found = find_duplicates([
        shown(long, other), shown(edited(long), other), shown(long.upper(), other + "!"),
        shown(long, "no"), shown(long, "No."), shown(long, "yes"), shown(prose(2), other),
    ])  # fmt: skip
    assert found.records.first.tolist() == [0, 0, 0, 3, 3, 5, 6]
    assert found.records.exact.tolist() == [False, False, True, False, True, False, False]
    assert found.plain() == {
        "records": 7, "exact_duplicates": 2, "near_duplicates": 1,
        "prompts": 7, "unique_prompts": 3, "near_duplicate_prompts": 1,
        "answers": 7, "unique_answers": 3,
    }  # fmt: skip


def test_a_record_repeats_the_first_of_its_copies_even_if_their_texts_came_apart_before() -> None:
    """Prompt and answer were each seen before, but in other company."""
    one, two = prose(0), prose(1)
    assert first(shown(one, "a"), shown("b", two), shown(one, two), shown(edited(one), two)) == [
        0, 1, 2, 2,
    ]  # fmt: skip


def test_swapped_pairs_and_other_labels_contradict_and_do_not_repeat() -> None:
    good, bad = prose(0), prose(1)
    assert first(pair("q", good, bad), pair("q", bad, good), pair("Q?", good, edited(bad))) == [
        0, 1, 0,
    ]  # fmt: skip
    thumbs = [Feedback("q", good, label, {}, HERE) for label in (True, False, True)]
    assert first(*thumbs) == [0, 1, 0]


def test_kinds_are_apart_and_documents_have_no_prompt() -> None:
    text = prose(0)
    found = find_duplicates(
        [Document(text, {}, HERE), shown("q", text), Document(edited(text), {}, HERE)]
    )
    assert found.records.first.tolist() == [0, 1, 0]
    assert (found.unique_prompts, len(found.prompts.first)) == (1, 1)
    assert find_duplicates([]).plain()["records"] == 0


def test_system_messages_tools_and_calls_count_as_they_are() -> None:
    question = {"role": "user", "content": "Where is it?"}
    brief, long = ({"role": "system", "content": text} for text in ("Be brief.", "Be long."))
    assert first(
        shown([question], "x"), shown([brief, question], "x"), shown([long, question], "x"),
        shown([brief, question], "X"), shown("Where is it", "x"),
    ) == [0, 1, 2, 1, 0]  # fmt: skip
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert first(shown("q", "x"), shown("q", "x", tools=tools), shown("q", "x", meta=1)) == [
        0,
        1,
        0,
    ]
    calls = [
        [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": name}}]}]
        for name in ("f", "g", "f")
    ]
    assert first(*(shown("q", call) for call in calls)) == [0, 1, 0]


def test_tasks_with_other_answers_are_other_tasks() -> None:
    columns: Sequence[dict[str, Any]] = (
        {"answer": "5", "id": 1}, {"answer": "6"}, {"answer": "5", "meta": {"trace": "t"}},
    )  # fmt: skip
    assert first(*(Task("2 + 3", each, HERE) for each in columns)) == [0, 1, 0]


def test_what_is_left_out_says_what_it_repeats() -> None:
    text = prose(0)
    records = [shown(each, "a", n=n) for n, each in enumerate((text, "b", edited(text), "B", text))]
    records = [
        Demonstration(r.prompt, r.completion, {}, Origin("a.jsonl", n + 1))
        for n, r in enumerate(records)
    ]
    out = list(unique_records(records, find_duplicates(iter(records)).records))
    assert [record for record, _ in out] == records
    assert [bad and (bad.kind, bad.reason, bad.origin.line, bad.excess) for _, bad in out] == [
        None,
        None,
        ("near_duplicate", "nearly the same as a.jsonl:1", 3, True),
        ("duplicate", "the same as a.jsonl:2", 4, True),
        ("duplicate", "the same as a.jsonl:1", 5, True),
    ]


def judged(model: str) -> list[dict[str, Any]]:
    path = DATA / f"alpaca_eval/{model}.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.realdata
@pytest.mark.skipif(not DATA.exists(), reason=f"no public data at {DATA} (set STROP_DATA)")
class TestRealData:
    def test_alpaca_eval_has_805_prompts_across_17_models(self) -> None:
        models = sorted(
            path.name.split(".jsonl")[0] for path in (DATA / "alpaca_eval").glob("*.gz")
        )
        assert len(models) == 17
        pairs = [
            pair(row["instruction"], row["output_1"][:200], row["output_2"][:200])
            for model in models
            for row in judged(model)
        ]
        found = find_duplicates(pairs)
        assert (len(pairs), found.unique_prompts) == (13_682, 805)
        assert found.plain()["near_duplicate_prompts"] <= 8
