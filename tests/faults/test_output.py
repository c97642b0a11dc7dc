"""Nobody reads what the run says: it goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.processes import Child
from tests.support.runs import metrics


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["plain", "json"])
def test_fault_15_stdout_closed(
    options: list[str], recipes: dict[str, Path], tmp_path: Path
) -> None:
    """As in `strop train sft.yaml | head -1`: the reader leaves before the first step."""
    pipe, errors = tmp_path / "pipe", tmp_path / "errors"
    os.mkfifo(pipe)
    child = Child(["train", recipes["sft"], *options], pipe, errors=errors)
    pipe.open("rb").close()  # opens once the child has opened its end, and reads nothing
    assert child.end() == 0, errors.read_text()
    run = recipes["sft"].parent / "runs/sft"
    assert [row["step"] for row in metrics(run)] == [1, 2, 3, 4, 5, 6]
    assert (run / "final").is_dir()
    assert "Error" not in errors.read_text()
