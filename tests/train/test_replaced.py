"""`--overwrite`: the run that is replaced is lost when the new one takes a step, and not before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from strop.demo.world import all_equations, assistant, solution, user
from strop.errors import DataError
from strop.recipe.loading.load import load_recipe
from strop.train.run import train
from strop.train.rundir.directory import REPLACED, is_finished
from strop.train.rundir.replaced import kept_aside, let_go, set_aside
from tests.support.runs import Finished, WriteRows

STEPS = "run.steps=4"


def content(folder: Path) -> dict[str, Any]:
    """Every file below a folder but its lock, and where its links lead."""
    return {
        str(path.relative_to(folder)): path.readlink() if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if (path.is_symlink() or path.is_file()) and path.name != ".lock"
    }


@pytest.fixture
def run(recipes: dict[str, Path], tmp_path: Path) -> Path:
    return train(load_recipe(recipes["sft"], [STEPS, f"output={tmp_path}/run"])).parent


def test_a_run_that_is_refused_late_leaves_the_old_one_whole(
    run: Path, finished: Finished, recipes: dict[str, Path], write_rows: WriteRows
) -> None:
    """What another run recorded is of other data, which is known once that was read."""
    before = content(run)
    record = finished("distil", STEPS, "objective.top_k=8") / "teacher.safetensors"
    data = write_rows("others.jsonl", [{"prompt": user(e), "completion": assistant(solution(e))}
                                       for e in all_equations()[1::53]])  # fmt: skip
    options = [STEPS, f"teacher={{recorded: {record}}}", f"data={data}", f"output={run}",
               "eval=null"]  # fmt: skip
    with pytest.raises(DataError, match="are of other data"):
        train(load_recipe(recipes["distil"], options), overwrite=True)
    assert content(run) == before
    assert is_finished(run)


def test_what_takes_a_step_replaces_it(run: Path, recipes: dict[str, Path]) -> None:
    before = content(run)
    again = load_recipe(recipes["sft"], ["run.steps=3", f"output={run}"])
    train(again, overwrite=True)
    after = content(run)
    assert not (run / REPLACED).exists()
    assert after["final/model.safetensors"] != before["final/model.safetensors"]
    assert any(key.startswith("checkpoint-3/") for key in after)
    assert not any(key.startswith("checkpoint-4/") for key in after)


def test_a_run_killed_before_its_first_step_is_replaced_by_the_old_one(
    run: Path, recipes: dict[str, Path]
) -> None:
    """A process that is killed puts nothing back; the next one does."""
    before = content(run)
    set_aside(run)
    (run / "recipe.resolved.yaml").write_text("method: sft\n")
    with kept_aside(run):
        set_aside(run)
    assert content(run) == before
    with kept_aside(run):
        set_aside(run)
        let_go(run)
    assert content(run) == {}
