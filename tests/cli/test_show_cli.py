"""`strop show`: once, live, for machines; it ends with the run, and Ctrl-C ends it cleanly."""

from __future__ import annotations

import io
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from strop.cli import story as verb
from strop.cli.app import app
from strop.errors import UsageError
from strop.files import LOCK
from strop.tracking.story.story import read_story
from strop.tracking.terminal.lines import story_lines, written
from tests.support.studio import write_run


def show(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["show", *map(str, arguments)])


@pytest.fixture
def at_work(tmp_path: Path) -> Path:
    """A run of this very process, 20 of its 40 steps done."""
    run = write_run(tmp_path / "run", steps=20, finished=False)
    recipe = (run / "recipe.resolved.yaml").read_text()
    (run / "recipe.resolved.yaml").write_text(recipe.replace("steps: 20", "steps: 40"))
    (run / LOCK).write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
    return run


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What happens between two looks, in the place of a second's wait."""

    def happens(*events: Callable[[], Any]) -> None:
        left = list(events)

        def sleep(seconds: float) -> None:
            assert seconds == verb.POLL == 1.0
            left.pop(0)()

        monkeypatch.setattr(verb.time, "sleep", sleep)

    return happens


def steps(run: Path, *numbers: int) -> Callable[[], None]:
    def happens() -> None:
        with (run / "metrics.jsonl").open("a") as log:
            for number in numbers:
                log.write(json.dumps({"step": number, "reward": 0.5}) + "\n")

    return happens


def test_once_is_the_story_as_text(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    result = show(run)
    assert result.exit_code == 0
    assert result.stdout.rstrip("\n") == written(story_lines(read_story(run)))


def test_a_folder_without_a_run_is_a_mistake(tmp_path: Path) -> None:
    result = show(tmp_path, "--watch")
    assert isinstance(result.exception, UsageError)
    assert "this folder holds no run" in str(result.exception)


def test_machines_get_one_object(tmp_path: Path) -> None:
    found = json.loads(show(write_run(tmp_path / "run"), "--json").stdout)
    assert (found["state"], found["step"], len(found["alarms"])) == ("finished", 40, 1)


def test_watching_ends_with_the_run_and_says_what_changed(
    at_work: Path, meanwhile: Callable[..., None]
) -> None:
    meanwhile(steps(at_work, 21), lambda: None, steps(at_work, 22, 23), (at_work / "final").mkdir)
    result = show(at_work, "--watch")
    lines = result.stdout.splitlines()
    assert lines[:3] == [f"step {n} of 40: running" for n in (20, 21, 23)]
    assert lines[3].startswith("run  grpo  finished, step 23 of 40")
    assert result.exit_code == 0


def test_watching_ends_where_the_process_is_gone(
    at_work: Path, meanwhile: Callable[..., None]
) -> None:
    meanwhile((at_work / LOCK).unlink)
    lines = [json.loads(line) for line in show(at_work, "--watch", "--json").stdout.splitlines()]
    assert [(one["state"], one["step"]) for one in lines] == [("running", 20), ("stopped", 20)]


def interrupt() -> None:
    raise KeyboardInterrupt


def test_ctrl_c_ends_the_watching_and_not_the_run(
    at_work: Path, meanwhile: Callable[..., None]
) -> None:
    before = sorted(one.name for one in at_work.iterdir())
    meanwhile(interrupt)
    result = show(at_work, "--watch", "--json")
    assert (result.exit_code, result.exception) == (0, None)
    assert len(result.stdout.splitlines()) == 1
    assert sorted(one.name for one in at_work.iterdir()) == before


def test_on_a_terminal_one_screen_is_drawn_again_and_the_last_stays(
    at_work: Path, meanwhile: Callable[..., None]
) -> None:
    meanwhile(steps(at_work, 21), (at_work / "final").mkdir)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, height=12, highlight=False)
    verb.live(verb.looks(at_work), console)
    said = screen.getvalue()
    assert said.count("\x1b[?25l") == said.count("\x1b[?25h") == 1  # the cursor is back
    first, rest = said.split("step 21 of 40", 1)
    assert "step 20 of 40" in first
    assert "sample of" not in first  # it is cropped to the height of the screen
    assert rest.count("sample of step 20") == 1  # the last one is whole
    assert "finished" in rest


def test_a_terminal_without_unicode_gets_ascii(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert verb.text_of(read_story(run), Console(file=file)).plain.isascii()
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert "▲" in verb.text_of(read_story(run), Console(file=file)).plain
