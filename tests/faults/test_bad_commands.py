"""Odd files from the command line, and by the thousand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.faults.fuzz import faults_of, run
from tests.support.refusals import RECIPE

COMMANDS = [
    "train odd.yaml --dry-run",
    "run odd.yaml --dry-run",
    "gate --base odd.jsonl --candidate odd.jsonl --margin 0.1 --output verdict.json",
    "reward check odd.jsonl --recipe reward.yaml",
]


PROGRAM = """
import sys
from strop.cli import main
for command in sys.argv[1:]:
    sys.argv = ["strop", *command.split()]
    try:
        main()
    except SystemExit as end:
        print(f"end of {command}: {end.code}", file=sys.stderr)
"""


def test_the_program_prints_one_message_and_writes_nothing(tmp_path: Path) -> None:
    """Four commands (in one process, for the sake of start-up): exit code 2, no traceback."""
    (tmp_path / "odd.yaml").write_text(RECIPE + "seed: !!int x\n")
    (tmp_path / "odd.jsonl").write_bytes(b'{"item": "1", "score": 1, "prompt": "\\ud800"}\n')
    (tmp_path / "reward.yaml").write_text("reward: [{function: exact_answer}]\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *COMMANDS],
        capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr + done.stdout
    said = re.findall(
        r"strop: odd\.(?:yaml|jsonl):\d+: .*\n  fix: .*\nend of (.*): 2\n", done.stderr
    )
    assert said == COMMANDS
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_two_thousand_drawn_inputs() -> None:
    """The first 2,000 of the fuzzer; `make chaos` draws 100,000."""
    found = run(2000, seed=0, jobs=1)
    assert len(found) == 2000
    assert len({row["kind"] for row in found}) > 30
    assert {"read", "refused"} == {row["ending"] for row in found}
    assert faults_of(found) == []
