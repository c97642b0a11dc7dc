"""docs/signals.md: what it shows is what comes out."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from strop.cli.app import app
from strop.curate.signals.rules import NO, THUMBS, VERDICTS, YES, folded
from strop.curate.signals.sources.table import SOURCES
from tests.support import ROOT
from tests.support.exports import made_of, user

PAGE = (ROOT / "docs/signals.md").read_text()


def observation(number: int) -> dict[str, Any]:
    return {"id": f"obs-{number}", "traceId": f"t-{number}", "type": "GENERATION",
            "startTime": "2026-01-05T10:00:00Z", "input": [user(f"{number}x = 12?")],
            "output": {"role": "assistant", "content": f"x = {number}"},
            "metadata": {"plan": "pro"}}  # fmt: skip


SCORES = [
    {"traceId": "t-1", "name": "user-feedback", "dataType": "NUMERIC", "value": 1},
    {"traceId": "t-2", "name": "user-feedback", "dataType": "BOOLEAN", "value": 0},
    {"traceId": "t-3", "name": "output", "dataType": "CORRECTION", "stringValue": "x = 4"},
    {"traceId": "t-4", "name": "relevance", "dataType": "NUMERIC", "value": 0.5},
]


@pytest.fixture
def exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the page names, in the working folder."""
    monkeypatch.chdir(tmp_path)
    rows = {"traces.jsonl": [observation(n) for n in range(1, 6)], "scores.jsonl": SCORES}
    for name, listed in rows.items():
        (tmp_path / name).write_text("\n".join(map(json.dumps, listed)))
    return tmp_path


def test_the_first_command_prints_what_the_page_shows(exports: Path) -> None:
    [shown] = re.findall(r"```\n(  recognised .*?)```", PAGE, flags=re.S)
    command = ["data", "build", "traces.jsonl", "scores.jsonl", "--output", "records"]
    found = CliRunner().invoke(app, command)
    assert found.output == shown
    made = {path.name for path in (exports / "records").iterdir()}
    for name in made:
        assert f"`{name}`" in PAGE


def test_the_lines_of_the_serving_log_are_read(tmp_path: Path) -> None:
    [block] = re.findall(r"```json\n(.*?)```", PAGE, flags=re.S)
    made = made_of(tmp_path, block.splitlines())
    assert list(made.built.bad) == []
    assert made.said("preferences", "chosen", "rejected") == [("x = 3", "x = 4")]
    assert made.said("feedback", "label") == [(False,)]


def test_the_python_runs(exports: Path) -> None:
    [block] = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    (exports / "traces.jsonl").write_text(json.dumps(
        {"prompt": "2x = 6?", "completions": ["3", "4"], "scores": [1, 0]}))  # fmt: skip
    exec(compile(block.replace('"relevance"', '"score"'), "signals.md", "exec"), {})
    assert len(Path("records/preferences.jsonl").read_text().splitlines()) == 1


def test_what_is_built_can_be_mined(exports: Path) -> None:
    run = CliRunner().invoke
    run(app, ["data", "build", "traces.jsonl", "scores.jsonl", "--output", "records"])
    files = [os.path.join("records", name) for name in ("preferences.jsonl", "feedback.jsonl")]
    found = run(app, ["eval", "mine", *files, "--output", "golden", "--json"])
    assert json.loads(found.output)["signals"] == {"edit": 1, "thumbs_down": 1, "thumbs_up": 1}


def test_every_source_is_on_the_page_and_no_other() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.M) == [
        name for name in re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.M) if name in SOURCES
    ]
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.M)) == set(SOURCES)


def test_the_names_and_words_it_gives_mean_what_it_says() -> None:
    [told] = re.findall(r"A value is a thumb under names such as (.*?), a verdict under (.*?), and",
                        PAGE.replace("\n", " "))  # fmt: skip
    for text, names in zip(told, (THUMBS, VERDICTS), strict=True):
        assert {folded(name) for name in re.findall(r"`(\w+)`", text)} <= names
    [words] = re.findall(r"from words \((.*?); (.*?)\)", PAGE.replace("\n", " "))
    for text, known in zip(words, (YES, NO), strict=True):
        assert {folded(word) for word in re.findall(r"`(\w+)`", text)} <= known
