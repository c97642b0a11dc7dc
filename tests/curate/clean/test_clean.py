"""`strop data clean` as a whole: what stays, what goes and why, and what never reaches a disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from strop.cli.app import app
from strop.curate.clean.clean import CleanReport, clean
from strop.curate.manifest import sources_of
from strop.errors import DataError
from strop.recipe.curate import CleanSettings
from tests.support.runs import write_jsonl

LONG = "Tell me in plain words how the old lighthouse keeper spent his days on the island and why"
MAIL, CARD = "ann.lee@example.org", "4111 1111 1111 1111"


def pair(prompt: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": answer, **more}


class Cleaned:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "out" / "clean.jsonl"

    def __call__(
        self, rows: list[dict[str, Any]], max_bad: float | None = None, **settings: Any
    ) -> CleanReport:
        source = write_jsonl(self.folder / "in.jsonl", rows)
        loaded = CleanSettings.model_validate(settings)
        return clean(sources_of([source], max_bad), self.output, loaded, overwrite=True)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    @property
    def dropped(self) -> dict[int, str]:
        """Line -> kind."""
        path = self.output.with_name("clean.dropped.jsonl")
        rows = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
        return {row["line"]: row["kind"] for row in rows}

    def written(self) -> str:
        return "".join(file.read_text() for file in self.output.parent.iterdir())


@pytest.fixture
def cleaned(tmp_path: Path) -> Cleaned:
    return Cleaned(tmp_path)


class TestPersonal:
    ROWS = [  # noqa: RUF012
        pair(f"I am {MAIL}", f"Hello {MAIL}", meta={"user": MAIL, "time": "2026-01-05"}),
        pair("Pay", "Done", calls=json.dumps({"card": CARD})),
        pair("Nothing here", "Nothing there"),
        {**pair("a", "b"), "chosen": f"{MAIL}", "rejected": f"{MAIL}"},
    ]

    def test_replaced_throughout_a_record_and_in_every_file(self, cleaned: Cleaned) -> None:
        report = cleaned(self.ROWS, 0.3, pii="replace")
        assert cleaned.rows == [
            pair("I am <EMAIL_1>", "Hello <EMAIL_1>",
                 meta={"user": "<EMAIL_1>", "time": "2026-01-05"}),
            pair("Pay", "Done", calls=json.dumps({"card": "<CARD_1>"})),
            pair("Nothing here", "Nothing there"),
        ]  # fmt: skip
        assert report.personal == {"email": 3, "card": 1}
        assert cleaned.dropped == {4: "chosen_equals_rejected"}
        assert MAIL not in cleaned.written()
        assert CARD not in cleaned.written()

    def test_a_value_that_one_record_shows_is_replaced_in_all(self, cleaned: Cleaned) -> None:
        rows = [
            pair("What about 467 3395?", "No."),
            pair("Call my phone: 467 3395", "Gladly."),
            pair("Sorry for 467 3395", "As an AI language model, I cannot say 467 3395 aloud."),
            {**pair("a", "b"), "label": "467 3395"},
        ]
        report = cleaned(rows, 0.3, pii="replace", disclaimers="drop")
        assert [row["prompt"] for row in cleaned.rows] == [
            "What about <PHONE_1>?", "Call my phone: <PHONE_1>",
        ]  # fmt: skip
        assert report.personal == {"phone": 4}
        assert "467 3395" not in cleaned.written()
        assert cleaned(rows[:2], pii="drop").kept == 0
        assert cleaned.dropped == {1: "personal", 2: "personal"}

    def test_reported(self, cleaned: Cleaned) -> None:
        report = cleaned(self.ROWS, 0.3)
        assert report.personal == {"email": 3, "card": 1}
        assert cleaned.rows == self.ROWS[:3]

    def test_dropped_without_leaving_a_trace(self, cleaned: Cleaned) -> None:
        cleaned(self.ROWS, 0.3, pii="drop")
        assert cleaned.rows == [self.ROWS[2]]
        assert cleaned.dropped == {1: "personal", 2: "personal", 4: "chosen_equals_rejected"}
        assert MAIL not in cleaned.written()

    def test_a_number_that_a_table_made_a_float(self, cleaned: Cleaned) -> None:
        cleaned([pair("call 415-555-2671 now", "ok", phone=4155552671.0, n=2.5)], pii="replace")
        assert cleaned.rows == [pair("call <PHONE_1> now", "ok", phone="<PHONE_1>", n=2.5)]

    def test_one_kind_alone(self, cleaned: Cleaned) -> None:
        report = cleaned(self.ROWS, 0.3, pii="replace", kinds=["card"])
        assert report.personal == {"card": 1}
        assert MAIL in cleaned.written()

    def test_no_error_message_quotes_one(self, cleaned: Cleaned) -> None:
        rows = [pair("a", "b", label=MAIL), {"conversations": [{"from": MAIL, "value": "a"}]}]
        with pytest.raises(DataError) as caught:
            cleaned(rows, pii="replace")
        assert "`label` is '[hidden]'" in str(caught.value)
        assert MAIL not in str(caught.value)
        assert not cleaned.output.parent.exists() or not list(cleaned.output.parent.iterdir())


class TestCopies:
    ROWS = [  # noqa: RUF012
        pair(f"{LONG} he never left it.", "He read."),
        pair(f"{LONG} he never left it.", "He read."),
        pair(f"{LONG} he never left it!", "he read"),
        pair(f"{LONG} he never once left it.", "He read."),
        pair(f"{LONG} he never left it.", "He slept."),
        pair("How many apples are 31 and 12?", "43"),
        pair("How many apples are 31 and 13?", "44"),
    ]

    @pytest.mark.parametrize(
        ("duplicates", "gone"),
        [
            ("near", {2: "duplicate", 3: "duplicate", 4: "near_duplicate"}),
            ("exact", {2: "duplicate", 3: "duplicate"}),
            ("keep", {}),
        ],
    )
    def test_the_first_one_stays(
        self, cleaned: Cleaned, duplicates: str, gone: dict[int, str]
    ) -> None:
        report = cleaned(self.ROWS, duplicates=duplicates)
        assert cleaned.dropped == gone
        assert report.kept == len(self.ROWS) - len(gone)
        assert report.duplicates["exact_duplicates"] == 2
        assert report.duplicates["unique_prompts"] == 4

    def test_an_equal_copy_of_a_near_copy_is_equal(self, cleaned: Cleaned) -> None:
        rows = [self.ROWS[0], self.ROWS[3], self.ROWS[3]]
        assert cleaned(rows, duplicates="exact").duplicates["exact_duplicates"] == 1
        assert cleaned.dropped == {3: "duplicate"}
        assert cleaned(rows).kept == 1

    def test_equal_once_they_are_mended(self, cleaned: Cleaned) -> None:
        report = cleaned([pair("cafÃ©", "oui"), pair("café", "oui")])
        assert report.repairs == {"mojibake": 1}
        assert (cleaned.rows, cleaned.dropped) == ([pair("café", "oui")], {2: "duplicate"})


class TestWhatNobodyWants:
    def test_each_fault_has_its_kind(self, cleaned: Cleaned) -> None:
        rows = [
            pair("Say it.", "The lighthouse stands on the rock in the middle of the bay."),
            pair("Say it in full.", "Der Leuchtturm steht auf dem Felsen mitten in der Bucht."),
            pair("Say it at once.", "I'm sorry, but I can't help with that request at all."),
            pair("Say it now.", "As an AI language model, I like the tall lighthouse a lot."),
            pair("Say it soon.", "Too short."),
            pair("Say it well.", "The light\ufffdhouse is \ufffd broken and beyond repair."),
        ]
        settings: dict[str, Any] = {"languages": ["en"], "least": 5}
        report = cleaned(rows, refusals="drop", disclaimers="drop", **settings)
        assert cleaned.rows == rows[:1]
        assert cleaned.dropped == {2: "language", 3: "refusal", 4: "disclaimer", 5: "too_short",
                                   6: "damaged"}  # fmt: skip
        assert report.dropped == dict.fromkeys(cleaned.dropped.values(), 1)
        cleaned(rows, **settings)
        assert set(cleaned.dropped) == {2, 5, 6}

    def test_openings_are_stripped_on_demand(self, cleaned: Cleaned) -> None:
        rows = [pair("List it.", "Sure! Here is the list:\n- a lamp"), pair("And?", "A rope.")]
        assert cleaned(rows).repairs == {}
        assert cleaned.rows == rows
        assert cleaned(rows, openings="strip").repairs == {"opening": 1}
        assert [row["completion"] for row in cleaned.rows] == ["- a lamp", "A rope."]

    def test_items_of_an_eval_set(self, cleaned: Cleaned, tmp_path: Path) -> None:
        held_out = write_jsonl(tmp_path / "eval.jsonl", [{"prompt": f"{LONG} he sang."}])
        copies = [pair(f"{LONG} he sang.", f"Because of {word}.") for word in "abcdefg"]
        report = cleaned([pair("Hi", "Hello"), *copies], against=[str(held_out)])
        assert report.contaminated == 1
        assert cleaned.rows == [pair("Hi", "Hello")]
        assert set(cleaned.dropped.values()) == {"in_eval_set"}


def test_nothing_is_lost_and_a_second_time_changes_nothing(cleaned: Cleaned) -> None:
    rows = [*TestPersonal.ROWS, *TestCopies.ROWS]
    report = cleaned(rows, 0.2, pii="replace")
    assert report.rows == len(rows) == report.kept + sum(report.dropped.values())
    once = cleaned.rows
    again = cleaned(once, pii="replace")
    assert cleaned.rows == once
    assert (again.dropped, again.repairs, again.personal) == ({}, {}, {})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pii": "keep", "kinds": ["email"]}, "`kinds` is only read with `pii`"),
        ({"unit": "words"}, "`unit` is only read with `least` or `most`"),
        ({"least": 3, "unit": "tokens"}, "needs `tokenizer`"),
        ({"threshold": 0.9}, "`threshold` is only read with `semantic`"),
        ({"spacy_model": "en"}, "`spacy_model` is only read with `names`"),
    ],
)
def test_an_option_that_nobody_would_read(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CleanSettings.model_validate(settings)


class TestCommandLine:
    def run(self, *words: str) -> Any:
        return CliRunner().invoke(app, ["data", "clean", *words], catch_exceptions=False)

    def test_one_json_object(self, tmp_path: Path) -> None:
        source = write_jsonl(tmp_path / "in.jsonl", TestPersonal.ROWS[:3])
        out = tmp_path / "out.jsonl"
        result = self.run(str(source), "--output", str(out), "--pii", "replace", "--json")
        found = json.loads(result.stdout)
        assert (found["rows"], found["kept"], found["output"]) == (3, 3, str(out))
        assert found["personal"] == {"email": 3, "card": 1}
        assert MAIL not in result.stdout + out.read_text()

    def test_a_dry_run_writes_nothing(self, tmp_path: Path) -> None:
        source = write_jsonl(tmp_path / "in.jsonl", TestPersonal.ROWS[:3])
        result = self.run(str(source), "--output", str(tmp_path / "out"), "--dry-run")
        assert "personal values: email" in result.stdout
        assert list(tmp_path.iterdir()) == [source]
