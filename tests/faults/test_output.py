"""Nobody reads what the run says: it goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import metrics


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["plain", "json"])
def test_fault_15_stdout_closed(options: list[str], recipes: dict[str, Path]) -> None:
    """As in `strop train sft.yaml | head -1`: the reader leaves before the first step."""
    command = [sys.executable, "-m", "strop.cli", "train", str(recipes["sft"]), *options]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    errors = child.stderr.read()
    assert child.wait(timeout=120) == 0, errors
    run = recipes["sft"].parent / "runs/sft"
    assert [row["step"] for row in metrics(run)] == [1, 2, 3, 4, 5, 6]
    assert (run / "final").is_dir()
    assert "Error" not in errors
