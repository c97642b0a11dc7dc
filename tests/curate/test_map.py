"""Records changed by a function of the user's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strop.curate.manifest import sources_of
from strop.curate.mapping import MapReport, map_records
from strop.errors import DataError, RewardError
from strop.recipe.curate import MapSettings
from tests.support.planned import read_jsonl, strop

FUNCTION = """
def edit(row):
    if row["completion"] == "no":
        return None
    if row["completion"] == "bad":
        return {"prompt": row["prompt"]} if False else 1 / 0
    return row | {"edited": row["completion"].upper()}

def wrong(row):
    return row["completion"]
"""


def answers(folder: Path, *said: str) -> Path:
    path = folder / "answers.jsonl"
    rows = [{"prompt": f"p{n}", "completion": text, "team": "a"} for n, text in enumerate(said)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "edits.py").write_text(FUNCTION)
    return path


def settings(folder: Path, function: str = "edit") -> MapSettings:
    return MapSettings(file=str(folder / "edits.py"), function=function)


def test_rows_are_what_the_function_returns_and_none_is_left_out(tmp_path: Path) -> None:
    source = answers(tmp_path, "yes", "no", "maybe")
    output = tmp_path / "out.jsonl"
    report = map_records(sources_of([source]), output, settings(tmp_path))
    assert report == MapReport(rows=3, kept=2)
    assert report.sentence == "2 rows changed, 1 left out by the function"
    assert read_jsonl(output) == [
        {"prompt": "p0", "completion": "yes", "team": "a", "edited": "YES"},
        {"prompt": "p2", "completion": "maybe", "team": "a", "edited": "MAYBE"},
    ]
    left = read_jsonl(tmp_path / "out.dropped.jsonl")
    assert [(one["line"], one["kind"]) for one in left] == [(2, "declined")]


def test_a_call_that_raises_is_a_bad_row_with_its_line(tmp_path: Path) -> None:
    source = answers(tmp_path, *["yes"] * 120, "bad")
    output = tmp_path / "out.jsonl"
    assert map_records(sources_of([source]), output, settings(tmp_path)).kept == 120
    left = read_jsonl(tmp_path / "out.dropped.jsonl")
    assert [(one["line"], one["kind"]) for one in left] == [(121, "raised")]
    assert "ZeroDivisionError" in left[0]["reason"]


def test_more_bad_rows_than_allowed_write_nothing(tmp_path: Path) -> None:
    source = answers(tmp_path, "yes", "bad")
    with pytest.raises(DataError, match="ZeroDivisionError"):
        map_records(sources_of([source]), tmp_path / "out.jsonl", settings(tmp_path))
    assert not (tmp_path / "out.jsonl").exists()


def test_what_is_no_row_is_refused_by_name(tmp_path: Path) -> None:
    source = answers(tmp_path, "yes")
    with pytest.raises(DataError, match="returned a str, not a row"):
        map_records(sources_of([source]), tmp_path / "o.jsonl", settings(tmp_path, "wrong"))


def test_a_function_that_is_not_there_is_said_with_those_that_are(tmp_path: Path) -> None:
    source = answers(tmp_path, "yes")
    with pytest.raises(RewardError, match="no function 'edits'") as caught:
        map_records(sources_of([source]), tmp_path / "o.jsonl", settings(tmp_path, "edits"))
    assert "edit, wrong" in str(caught.value.fix)


def test_on_the_command_line(tmp_path: Path) -> None:
    source = answers(tmp_path, "yes", "no")
    told = strop("data", "map", source, "--file", tmp_path / "edits.py", "--function", "edit",
                 "--output", tmp_path / "out.jsonl", "--json")  # fmt: skip
    assert json.loads(told)["kept"] == 1
    assert len(read_jsonl(tmp_path / "out.jsonl")) == 1


def test_sampled_answers_that_were_edited_become_pairs_without_a_strange_field(
    tmp_path: Path, model_folder: Path
) -> None:
    """From a model's own answers to pairs: what `sample` notes of an answer is known to `build`."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"{n}x = 6"}) + "\n" for n in range(1, 9)))
    (tmp_path / "edits.py").write_text(
        'def edit(row):\n    return row | {"edited": row["completion"] + " 1"}\n'
    )
    sampled, edited = tmp_path / "sampled.jsonl", tmp_path / "edited.jsonl"
    strop("data", "sample", prompts, "--model", model_folder, "--max-tokens", 8,
          "--output", sampled)  # fmt: skip
    map_records(sources_of([sampled]), edited, settings(tmp_path))
    told = strop("data", "build", edited, "--source", "answers", "--edit-min", "0",
                 "--edit-max", "1", "--output", tmp_path / "pairs")  # fmt: skip
    pairs = read_jsonl(tmp_path / "pairs/preferences.jsonl")
    assert [
        tuple(pair[side][-1]["content"] for side in ("chosen", "rejected")) for pair in pairs
    ] == [(row["edited"], row["completion"]) for row in read_jsonl(edited)]
    assert "unknown fields" not in told
