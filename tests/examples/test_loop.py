"""The loop closed, at small size: users are heard, and a worse canary is taken back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT


def test_users_are_heard_and_a_worse_version_takes_itself_back(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples/loop"), "--out", str(tmp_path / "loop"),
               "--users", "80", "--sft", "250", "--steps", "20"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    story = json.loads((tmp_path / "loop" / "story.json").read_text())
    content = {
        part: sum(visit["content"] for visit in story[part]) / len(story[part])
        for part in ("first", "second")
    }
    # the opener, of half the answers, goes; a share of 80 has a standard error of 0.05
    assert content["second"] > content["first"] + 0.1
    assert {visit["weights"] for visit in story["first"]}.isdisjoint(
        visit["weights"] for visit in story["second"]
    )
    assert story["state"] == "taken back"
    assert story["bounds"][-1]["high"] < 0
    sides = [visit for visit in story["trial"] if visit["side"] == "canary"]
    assert 0.35 < len(sides) / len(story["trial"]) < 0.65
    listed = subprocess.run(
        [sys.executable, "-m", "strop", "registry", "list", "--json", "--registry",
         str(tmp_path / "loop" / "registry.db")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    promoted = [event["entry"] for event in json.loads(listed.stdout)["events"]]
    assert len(set(promoted)) == len(promoted) == 2  # the first model, and what was heard
