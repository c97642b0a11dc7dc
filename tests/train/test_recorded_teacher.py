"""What a teacher said, on disk: of which reading it is, and whether it is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from strop.errors import DataError
from strop.recipe.loading.load import load_recipe
from strop.train.run import train
from tests.support.runs import Finished, WriteRows, break_off, final_weights, same
from tests.support.teaching import hinted_rows

STEPS, K = "run.steps=4", "objective.top_k=8"
HINTED = "teacher={own: start, prompt: hinted}"


def flip(path: Path) -> None:
    """Change one bit of the last number, and nothing that a reader of the format would miss."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_records_that_only_the_teacher_tells_apart_are_refused(
    recipes: dict[str, Path], write_rows: WriteRows
) -> None:
    """Of one prompt and answer a record holds one set of log-probs; which would it be?"""
    hinted_rows(write_rows)
    rows = [json.loads(line) for line in (recipes["distil"].parent / "hinted.jsonl").open()][:3]
    other = {**rows[0], "hinted": [{"role": "user", "content": "x = 9"}]}
    twice = write_rows("twice.jsonl", [*rows, other])
    recipe = load_recipe(recipes["distil"], [STEPS, K, HINTED, "eval=null", f"data={twice}"])
    with pytest.raises(DataError, match=r"twice\.jsonl:1, and the teacher is told") as caught:
        train(recipe)
    assert caught.value.where.endswith("twice.jsonl:4")
    same_hint = write_rows("same_hint.jsonl", [*rows, rows[0]])
    train(load_recipe(recipes["distil"], [STEPS, K, HINTED, "eval=null", f"data={same_hint}"]))


def test_other_hints_are_asked_about_again(
    recipes: dict[str, Path], write_rows: WriteRows, tmp_path: Path
) -> None:
    data, _ = hinted_rows(write_rows)
    options = [STEPS, K, HINTED, "eval=null", data, f"output={tmp_path}/run"]
    recipe = load_recipe(recipes["distil"], options)
    kept = break_off(recipe, 3) / "teacher.safetensors"
    before = kept.read_bytes()
    path = Path(data.removeprefix("data="))
    rows = [json.loads(line) for line in path.open()]
    write_rows(path.name, [{**r, "hinted": [{"role": "user", "content": "x = 9"}]} for r in rows])
    train(recipe, force_resume=True)
    assert kept.read_bytes() != before


def test_a_changed_bit_is_noticed(
    finished: Finished, recipes: dict[str, Path], tmp_path: Path
) -> None:
    recipe = load_recipe(recipes["distil"], [STEPS, K, f"output={tmp_path}/run"])
    kept = break_off(recipe, 3) / "teacher.safetensors"
    content = kept.read_bytes()
    flip(kept)
    with safe_open(kept, framework="pt") as file:
        assert len(file.get_tensor("ids_NK")) > 0  # a whole file, as far as its format knows
    with pytest.warns(UserWarning, match="its numbers are not those that were written"):
        parts = train(recipe, resume=True).parent
    assert kept.read_bytes() == content
    assert same(final_weights(finished("distil", STEPS, K)), final_weights(parts))


def test_a_changed_record_of_another_run_is_refused(
    finished: Finished, recipes: dict[str, Path], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes((finished("distil", STEPS, K) / "teacher.safetensors").read_bytes())
    flip(damaged)
    options = [STEPS, "eval=null", f"teacher={{recorded: {damaged}}}", f"output={tmp_path}/run"]
    with pytest.raises(DataError, match="not those that were written"):
        train(load_recipe(recipes["distil"], options))
