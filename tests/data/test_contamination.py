"""Planted overlaps are found, look-alikes are not; duplicates likewise."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from strop.data.overlap import overlap
from strop.data.records import demonstration, preference
from strop.data.records import task as task_record
from strop.data.sources import at, data_hash
from strop.demo.world import demonstrations, split
from strop.demo.write import edit, task
from strop.evals.overlap import check_overlap, training_sources
from strop.types import Demonstration, Document, Origin, Preference, Record, Task, Text
from tests.support.runs import WriteRows

VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "prstz"]


def prose(draw: random.Random, count: int) -> str:
    return " ".join(draw.choices(VOCABULARY, k=count))


def asks(prompt: Text, **columns: object) -> Task:
    return Task(prompt, columns, Origin("test.jsonl", 1))


def learnt(prompt: Text, completion: Text = "x = 5", line: int = 1) -> Demonstration:
    return Demonstration(prompt, completion, {}, Origin("sft.jsonl", line))


def chat(text: str, system: str | None = None) -> list[dict[str, str]]:
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": text}]


def how(item: Task | Preference, *training: Record) -> list[str]:
    return [match.how for match in overlap([item], training).matches]


@pytest.mark.parametrize(
    "other",
    ["solve  3X + 7 = 22.", "Solve:\n3x + 7 = 22!", "SOLVE 3x+7=22", "Solve 3x \u002b 7 = 22"],
)
def test_case_spaces_and_punctuation_do_not_hide_an_item(other: str) -> None:
    assert how(asks("Solve 3x + 7 = 22"), learnt(other)) == ["prompt"]


@pytest.mark.parametrize(
    "other",
    ["Solve 3x + 7 = 25", "Solve 3x - 7 = 22", "Solve 3y + 7 = 22", "Solve 3x + 7 > 22",
     "Solve 3x + 7 = 22 and say why", "Solve 3x + 7 = 2.2"],
)  # fmt: skip
def test_another_number_sign_or_word_is_another_question(other: str) -> None:
    assert how(asks("Solve 3x + 7 = 22"), learnt(other)) == []


def test_text_and_chat_are_one_prompt_and_system_messages_do_not_count() -> None:
    item = asks(chat("Name the capital of Peru", system="Be brief."))
    assert how(item, learnt("Name the capital of Peru")) == ["prompt"]
    assert how(asks("Name the capital of Peru"), learnt(chat("name the capital of Peru?"))) == [
        "prompt"
    ]
    assert how(asks(chat("Hello Peru", system="Be brief.")), learnt(chat("Be brief."))) == []


def test_a_later_turn_or_a_line_of_a_document_gives_an_item_away() -> None:
    turns = [
        {"role": "assistant", "content": "Lima."},
        {"role": "user", "content": "Solve 3x + 7 = 22"},
        {"role": "assistant", "content": "x = 5"},
    ]
    item = asks("Solve 3x + 7 = 22")
    assert how(item, learnt(chat("Name the capital of Peru"), turns)) == ["prompt"]
    assert how(item, Document("Page 4\nSolve 3x + 7 = 22\nx = 5", {}, Origin("c.jsonl", 1))) == [
        "prompt"
    ]
    assert how(item, Document("Page 4: 3x + 7 = 25", {}, Origin("c.jsonl", 1))) == []


def test_a_short_answer_under_another_prompt_is_no_overlap_but_a_long_one_is() -> None:
    draw = random.Random(0)
    assert how(asks("Solve 3x + 7 = 22", answer="5"), learnt("Count the fingers", "5")) == []
    essay = prose(draw, 60)
    pair = Preference("Write an essay", essay, "No.", {}, Origin("test.jsonl", 1))
    assert how(pair, learnt("Something quite different", essay.upper())) == ["answer"]
    short = Preference("Write an essay", prose(draw, 40), "No.", {}, Origin("test.jsonl", 1))
    assert isinstance(short.chosen, str)
    assert how(short, learnt("Something quite different", short.chosen)) == []


def test_thirteen_words_in_a_row_are_enough_and_twelve_are_not() -> None:
    draw = random.Random(1)
    text = prose(draw, 30).split()
    item = asks(" ".join(text))
    for shared, expected in ((13, ["13-gram"]), (12, [])):
        for start in range(30 - shared + 1):
            planted = [*prose(draw, 5).split(), *text[start : start + shared]]
            for tail in range(8):  # wherever it starts, a block of seven falls inside
                other = " ".join([*prose(draw, tail).split(), *planted, "zzz"])
                assert how(item, learnt(other)) == expected, (shared, start, tail)


def test_share_is_of_the_items_own_runs() -> None:
    text = prose(random.Random(2), 30)
    (match,) = overlap([asks(text)], [learnt("now " + " ".join(text.split()[:15]))]).matches
    assert match.share == pytest.approx(3 / 18)  # 15 words hold 3 of 30 - 13 + 1 runs


def test_a_template_with_other_numbers_is_another_task() -> None:
    story = "{} friends each buy {} clips in April and half as many again in the month of May, so how many clips is that in all?"  # noqa: E501
    item = asks(story.format(48, 7))
    assert how(item, learnt(story.format(31, 9))) == []
    assert how(item, learnt("Please answer. " + story.format(48, 7))) == ["13-gram"]


def test_a_template_of_many_prompts_does_not_count_but_a_leak_inside_it_does() -> None:
    draw = random.Random(3)
    template = prose(draw, 25)
    questions = [f"how many {prose(draw, 8)}" for _ in range(60)]
    training = [learnt(f"{template} {q}", line=n) for n, q in enumerate(questions[:40], 1)]
    items = [asks(f"{template} {q}") for q in questions[40:]]
    assert overlap(items, training).matches == ()
    leaked = learnt(f"Now: {template} {questions[47]}", line=99)
    (match,) = overlap(items, [*training, leaked]).matches
    assert (match.item, match.how, match.places) == (7, "13-gram", (Origin("sft.jsonl", 99),))


def test_one_planted_item_of_two_hundred_is_named_and_no_other() -> None:
    draw = random.Random(4)
    items = [asks(prose(draw, draw.randint(4, 60))) for _ in range(200)]
    training = [learnt(prose(draw, draw.randint(4, 60)), line=n) for n in range(1, 3001)]
    assert overlap(items, training).matches == ()
    planted = items[123].prompt
    assert isinstance(planted, str)
    for line in (17, 40, 900, 901, 902, 903):
        training[line - 1] = learnt(f"  {planted.upper()} ?", line=line)
    found = overlap(items, training)
    assert (found.items, found.records) == (200, 3000)
    (match,) = found.matches
    assert (match.item, match.how, match.count, match.share) == (123, "prompt", 6, 1.0)
    assert [place.line for place in match.places] == [17, 40, 900, 901, 902, 903]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_demo_world_is_clean_and_its_own_training_data_is_not(seed: int) -> None:
    training, held_out = split(seed, 400)
    draw = random.Random(seed)
    shown: list[Record] = [
        demonstration(row, Origin("d.jsonl", n))
        for n, row in enumerate(demonstrations(training, seed, 3000), 1)
    ]
    shown += [preference(edit(e, draw), Origin("e.jsonl", 1)) for e in training[:500]]
    items: list[Task | Preference] = [task_record(task(e), Origin("t.jsonl", 1)) for e in held_out]
    items += [preference(edit(e, draw), Origin("te.jsonl", 1)) for e in held_out]
    assert overlap(items, shown).matches == ()
    inside = [task_record(task(e), Origin("t.jsonl", 1)) for e in training[:50]]
    assert len(overlap(inside, shown).matches) == 50


RULES = "You are the clerk of a shop, and a customer comes in with a complaint that you settle."


@pytest.mark.parametrize("prompt", ["Hello?", RULES])
@pytest.mark.parametrize(
    ("training", "found"),
    [
        ({"persona": "You want a refund.", "id": "a"}, True),
        ({"persona": "You want a lamp.", "id": "b"}, False),
        ({}, True),  # it may be the same: nothing says that it is not
    ],
)
def test_columns_tell_tasks_of_one_prompt_apart(
    prompt: str, training: dict[str, str], found: bool
) -> None:
    item = asks(prompt, persona="You want a refund.", id="b")
    record = Task(prompt, training, Origin("grpo.jsonl", 1))
    assert bool(overlap([item], [record], [["persona"]]).matches) is found
    assert how(item, record) != [], "without columns the prompt decides"


def test_a_match_names_only_the_same_tasks() -> None:
    item = asks(RULES, persona="A")
    training = [Task(RULES, {"persona": p}, Origin("t", n)) for n, p in enumerate("BABA")]
    (match,) = overlap([item], training, [["persona"]]).matches
    assert (match.count, [place.line for place in match.places]) == (2, [1, 3])


def lineage_of(*files: Path, parent: Path) -> dict[str, object]:
    def data(path: Path) -> dict[str, str]:
        return {"path": str(path), "sha256": data_hash([path])}

    base = {"model": "base"}
    sft = {"model": "runs/sft/final", "data": [data(parent)], "parent": base}
    return {"model": "runs/dpo/final", "data": [data(file) for file in files], "parent": sft}


def test_the_whole_ancestry_is_read_and_lost_files_are_named(write_rows: WriteRows) -> None:
    sft = write_rows(
        "sft.jsonl",
        [{"messages": [*chat(q), {"role": "assistant", "content": "x"}]} for q in ("One?", "Two?")],
    )
    pairs = write_rows("dpo.jsonl", [{"prompt": "Three?", "chosen": "a", "rejected": "b"}])
    text = write_rows("cpt.jsonl", [{"text": "Four?\nYes."}])
    lost = write_rows("lost.jsonl", [{"prompt": "Five?", "completion": "a", "label": True}])
    changed = write_rows("changed.jsonl", [{"prompt": "Six?", "answer": "6"}])
    lineage = lineage_of(pairs, text, lost, changed, parent=sft)
    assert training_sources(lineage)[0] == (at(sft), data_hash([sft]))
    names = ("two", "three", "four", "five", "six")
    items = [Task(f"{n.title()}?", {"id": n}, Origin("test.jsonl", 3)) for n in names]
    whole = check_overlap(items, lineage)
    assert [one.item for one in whole.found] == list(names)
    assert whole.unknown == {}
    lost.unlink()
    changed.write_text(json.dumps({"prompt": "Seven?", "answer": "6"}) + "\n")
    report = check_overlap(items, lineage)
    assert [(one.item, one.training) for one in report.found] == [
        ("two", (f"{sft}:2",)),
        ("three", (f"{pairs}:1",)),
        ("four", (f"{text}:1",)),
    ]
    assert report.unknown == {
        str(lost): "it is gone",
        str(changed): "it changed since the training",
    }
    assert report.checked == (str(sft), str(pairs), str(text))
    assert report.lines()[0] == f"test.jsonl:3: item two was trained on (equal prompt): {sft}:2"
    assert len(report.lines()) == 5


def test_an_ancestor_whose_weights_changed_is_unknown() -> None:
    lineage = {"model": "m", "data": [], "parent": {"model": "runs/sft/final", "changed": True}}
    report = check_overlap([asks("One?")], lineage)
    assert report.unknown == {"runs/sft/final": "its weights changed, so its history is lost"}
