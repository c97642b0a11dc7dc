"""What a check keeps of the rows; repetitions and conflicts by brute force."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from strop.cli.app import app
from strop.curate.check.families.conflicts import conflicts
from strop.curate.check.families.counts import duplicates, prompts
from strop.curate.check.ledger import asks, hashed, said
from strop.curate.check.stage import readers
from strop.curate.check.survey import Annotations, Sample, Survey, quantiles
from strop.data.sources import at
from strop.recipe.curate import CheckSettings
from strop.text.distance import edit_distance
from strop.text.masked import HIDDEN
from strop.types import Feedback, Origin, Preference, Record, Task
from tests.support.runs import write_jsonl


def surveyed(records: Sequence[Record]) -> Survey:
    survey = Survey(Annotations(()))
    for record in records:
        survey._note(record)
    return survey


class TestIdentity:
    def test_a_text_and_a_lone_user_turn_ask_the_same(self) -> None:
        assert asks("2x = 6") == asks([{"role": "user", "content": "2x = 6"}])
        assert asks("2x = 6") != asks(
            [{"role": "system", "content": "be kind"}, {"role": "user", "content": "2x = 6"}]
        )

    def test_white_space_does_not_count_and_everything_else_does(self) -> None:
        assert hashed("x  =\n3") == hashed(" x = 3 ")
        assert hashed("x = 3") != hashed("X = 3")
        assert 0 <= hashed("half of a pair \ud800") < 2**64

    def test_other_tool_calls_are_other_answers(self) -> None:
        def call(city: str) -> list[dict[str, Any]]:
            function = {"name": "weather", "arguments": {"city": city}}
            return [{"role": "assistant", "content": None, "tool_calls": [{"function": function}]}]

        assert said(call("Rome")) == said(call("Rome")) != said(call("Oslo"))


class TestSample:
    def test_all_where_they_fit_in_order(self) -> None:
        sample = Sample(size=10)
        records = [Task(str(n), {}, Origin("a", n)) for n in range(10)]
        for record in records:
            sample.add(record)
        assert sample.records() == records

    def test_every_row_has_the_same_chance(self) -> None:
        """300 draws of 5 from 20: each row is drawn 75 times, give or take 7.5."""
        drawn: Counter[int] = Counter()
        for seed in range(300):
            sample = Sample(size=5, _random=random.Random(seed))
            for n in range(20):
                sample.add(Task(str(n), {}, Origin("a", n)))
            lines = [record.origin.line for record in sample.records()]
            assert lines == sorted(set(lines))
            assert len(lines) == 5
            drawn.update(lines)
        assert all(45 <= drawn[n] <= 105 for n in range(20))

    def test_quantiles_by_hand(self) -> None:
        assert quantiles([3, 1, 2], [0, 0.5, 1.0]) == [1, 2, 3]
        assert quantiles([]) == []


ANSWERS = st.sampled_from("abcd")
COMPARED = st.lists(
    st.tuples(st.sampled_from("PQ"), ANSWERS, ANSWERS).filter(lambda one: one[1] != one[2]),
    min_size=1,
    max_size=12,
)


def preferences(rows: Sequence[tuple[str, str, str]]) -> list[Preference]:
    return [Preference(p, c, r, {}, Origin("a", n + 1)) for n, (p, c, r) in enumerate(rows)]


@given(COMPARED)
def test_contradictions_are_those_of_brute_force(rows: list[tuple[str, str, str]]) -> None:
    figures = conflicts(surveyed(preferences(rows))).figures
    counts = Counter(rows)
    against = [row for row in rows if counts[row[0], row[2], row[1]]]
    assert figures["contradictory_rows"] == len(against)
    least = {(p, *sorted((c, r))): min(counts[p, c, r], counts[p, r, c]) for p, c, r in against}
    assert figures["least_wrong_rows"] == sum(least.values())


@given(COMPARED)
def test_circles_are_those_of_brute_force(rows: list[tuple[str, str, str]]) -> None:
    """Over the majority's verdicts, ties aside: some path of three or four answers closes."""
    counts = Counter(rows)
    won = {(p, c, r) for p, c, r in rows if counts[p, c, r] > counts[p, r, c]}
    circles = {
        prompt
        for prompt in "PQ"
        for size in (3, 4)
        for path in permutations("abcd", size)
        if all((prompt, a, b) in won for a, b in zip(path, (*path[1:], path[0]), strict=True))
    }
    assert conflicts(surveyed(preferences(rows))).figures["cyclic_prompts"] == len(circles)


@given(st.lists(st.tuples(ANSWERS, ANSWERS, st.booleans()), min_size=1, max_size=12))
def test_thumbs_and_repetitions_are_those_of_brute_force(
    rows: list[tuple[str, str, bool]],
) -> None:
    records = [Feedback(p, c, label, {}, Origin("a", n)) for n, (p, c, label) in enumerate(rows)]
    survey = surveyed(records)
    both = [row for row in rows if (*row[:2], not row[2]) in rows]
    assert conflicts(survey).figures["liked_and_disliked_rows"] == len(both)
    figures = duplicates(survey).figures
    assert figures["duplicate_rows"] == len(rows) - len(set(rows))
    under = Counter(c for _, c in {(p, c) for p, c, _ in rows})
    assert figures["most_repeated_answer"]["prompts"] == max(under.values())
    counted = prompts(survey).figures
    assert counted["unique_prompts"] == len({p for p, *_ in rows})
    assert counted["most_rows_a_prompt"] == max(Counter(p for p, *_ in rows).values())


def test_edit_distance_by_hand() -> None:
    assert edit_distance("x = 3", "x = 4") == 0.2
    assert edit_distance("same", "same") == 0.0
    long = "word " * 1000
    assert edit_distance(long, long + "more") == pytest.approx(1 / 1001)


def test_the_data_is_not_held(tmp_path: Path) -> None:
    """Bad rows keep three places a kind, records a sample, whatever their number."""
    rows = [{"prompt": f"ask {n}", "chosen": "a" if n % 2 else "", "rejected": "b"} for n in
            range(2000)]  # fmt: skip
    survey = Survey(Annotations(()), sample=Sample(size=50))
    count = sum(1 for _ in survey.passing([at(write_jsonl(tmp_path / "data.jsonl", rows))]))
    (sieve,) = survey.sieves
    assert (count, survey.rows, survey.bad) == (1000, 2000, 1000)
    assert [bad.origin.line for bad in sieve.dropped.first["empty"]] == [1, 3, 5]
    assert (len(sieve.dropped), len(survey.sample.records())) == (1000, 50)
    assert len(survey.ledger) == 1000
    assert str(survey.ledger.origin(999)).endswith("data.jsonl:2000")


def test_what_renders_is_what_the_settings_name(model_folder: Path) -> None:
    assert readers(CheckSettings()) == (None, None)
    alone, ches = readers(CheckSettings(template="chatml", max_length=64, preview=1))
    assert alone is not None
    assert ches is None
    assert (alone.max_length, alone.previewed) == (64, 1)
    plain, _ = readers(CheckSettings(tokenizer=str(model_folder)))
    other, _ = readers(CheckSettings(tokenizer=str(model_folder), template="chatml"))
    assert plain is not None
    assert other is not None
    turn = [{"role": "user", "content": "Hi"}]
    written = other.tokenizer.apply_chat_template(turn, tokenize=False)
    assert written.startswith("<|im_start|>user\nHi<|im_end|>")
    assert written != plain.tokenizer.apply_chat_template(turn, tokenize=False)
    with_model, ches = readers(CheckSettings(model=str(model_folder), template="chatml"))
    assert with_model is not None
    assert ches is not None
    assert with_model.tokenizer.apply_chat_template(turn, tokenize=False) == written


@pytest.mark.parametrize("as_json", [True, False])
def test_a_secret_of_a_bad_row_is_in_no_report(tmp_path: Path, as_json: bool) -> None:
    """The fault of a row quotes its value; what is quoted is hidden, and the fault still named."""
    rows: list[dict[str, object]] = [
        {"prompt": "a", "completion": "x", "label": True},
        {"prompt": "a", "completion": "x", "label": "password: hunter2secret99"},
    ]
    page = tmp_path / "page.html"
    source = write_jsonl(tmp_path / "thumbs.jsonl", rows)
    asked = ["data", "check", source, "--max-bad", "1", "--html", page, *["--json"] * as_json]
    told = CliRunner().invoke(app, list(map(str, asked)))
    assert told.exit_code == 10  # half of the rows are bad
    for text in (told.output, page.read_text()):
        assert "hunter2" not in text
        assert HIDDEN in text
