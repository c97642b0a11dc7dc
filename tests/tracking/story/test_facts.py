"""What a run's folder says of it, also when parts of it are missing or broken."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from strop.files import LOCK, locked
from strop.tracking.control import CONTROL, forget, want, wish_of
from strop.tracking.story.facts import facts_of, is_run, owner_of, recipe_of, steps_of

NOBODY = 2**22 + 1
"""Above the largest process number of Linux."""


def begun(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "recipe.resolved.yaml").write_text("method: dpo\nrun: {steps: 7}\n")
    lineage = {"method": "dpo", "parent": {"path": "base"}, "data": [{"path": "a.jsonl"}],
               "resumed": [{"step": 4}, {"step": 2}, {"step": 4}]}  # fmt: skip
    (folder / "lineage.json").write_text(json.dumps(lineage))
    return folder


def test_a_run_that_is_at_work_paused_stopped_and_finished(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    assert is_run(run)
    facts = facts_of(run)
    assert (facts.state, facts.method, facts.parent) == ("stopped", "dpo", "base")
    assert (facts.data, facts.resumed, facts.problems) == (("a.jsonl",), (2, 4), ())
    with locked(run):
        assert facts_of(run).state == "running"
        assert facts_of(run).owner == f"process {os.getpid()} on {socket.gethostname()}"
        want(run, "pause")
        assert facts_of(run).state == "paused"
    assert facts_of(run).state == "stopped"
    (run / "final").mkdir()
    assert facts_of(run).state == "finished"


def test_the_lock_of_a_process_that_was_killed_counts_for_nothing(tmp_path: Path) -> None:
    note = {"pid": NOBODY, "host": socket.gethostname(), "started": "now"}
    (tmp_path / LOCK).write_text(json.dumps(note))
    assert owner_of(tmp_path) is None
    (tmp_path / LOCK).write_text(json.dumps({**note, "host": "elsewhere"}))
    assert owner_of(tmp_path) == f"process {NOBODY} on elsewhere"
    (tmp_path / LOCK).write_text("{")
    assert owner_of(tmp_path) is None


def test_broken_files_are_told_and_the_rest_is_read(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    (run / "lineage.json").write_text('{"method": ')
    (run / "recipe.resolved.yaml").write_text("method: [dpo\n")
    facts = facts_of(run)
    assert facts.method == "unknown"
    assert facts.problems[0].startswith("lineage.json cannot be read: ")
    assert recipe_of(run)[0] == {}
    assert recipe_of(run)[1].startswith("recipe.resolved.yaml cannot be read: ")
    (run / "lineage.json").unlink()
    assert facts_of(run).problems == (
        "lineage.json is missing: the run had not begun, or was copied in part",
    )


def test_how_many_steps_are_to_come() -> None:
    assert steps_of({"run": {"steps": 80, "epochs": None}}, 5, 0.1) == 80
    assert steps_of({"run": {"steps": None, "epochs": 2}}, 50, 0.5) == 200
    assert steps_of({"run": {"steps": None, "epochs": 2}}, 0, None) is None
    assert steps_of({}, 3, 1.0) is None


def test_wishes_are_kept_dropped_and_never_guessed(tmp_path: Path) -> None:
    assert wish_of(tmp_path) == "go"
    want(tmp_path, "stop")
    assert wish_of(tmp_path) == "stop"
    want(tmp_path, "go")
    assert not (tmp_path / CONTROL).exists()
    for broken in ("", "{", "[]", '{"want": "explode"}', '{"want": 3}'):
        (tmp_path / CONTROL).write_text(broken)
        assert wish_of(tmp_path) == "go"
    forget(tmp_path)
    assert not (tmp_path / CONTROL).exists()
