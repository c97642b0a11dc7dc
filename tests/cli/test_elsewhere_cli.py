"""`strop export-recipe` and `strop import-recipe` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from typer.testing import CliRunner

from strop.cli.app import app
from strop.recipe.loading.load import load_recipe
from tests.support.elsewhere import values_of


def recipe_file(folder: Path, method: str = "dpo") -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values_of(method, folder)))
    return path


def typed(*words: object) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, done.stdout, done.exception


def test_there_and_back(tmp_path: Path) -> None:
    output = tmp_path / "out"
    code, said, _ = typed("export-recipe", recipe_file(tmp_path), "--to", "trl", "--output", output)
    assert code == 0
    notes = (output / "NOTES.md").read_text()
    lost = [line for line in said.splitlines() if line.startswith("- ")]
    assert lost
    assert all(line in notes for line in lost)
    assert sorted(p.name for p in output.iterdir()) == [
        "NOTES.md", "config.yaml", "train.jsonl", "train.py",
    ]  # fmt: skip
    back = tmp_path / "back.yaml"
    code, said, _ = typed(
        "import-recipe", output / "config.yaml", "--from", "trl", "--output", back
    )
    assert code == 0
    assert "method dpo" in said
    assert load_recipe(back).method == "dpo"


def test_json_and_set(tmp_path: Path) -> None:
    output = tmp_path / "out"
    words = ["--to", "verl", "--output", output, "--set", "optim.learning_rate=0.25", "--json"]
    code, said, _ = typed("export-recipe", recipe_file(tmp_path, "grpo"), *words)
    assert code == 0
    told = json.loads(said)
    assert sorted(told["files"]) == sorted(p.name for p in output.iterdir())
    assert told["lost"]
    assert "lr: 0.25" in (output / "run.yaml").read_text()


def test_a_mistake_is_one_message(tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path)
    _, _, unknown = typed("export-recipe", recipe, "--to", "nemo", "--output", tmp_path / "out")
    assert "unknown system 'nemo'" in str(unknown)
    assert "trl, axolotl, llamafactory, verl, openrlhf, unsloth" in str(unknown)
    _, _, refused = typed("export-recipe", recipe, "--to", "verl", "--output", tmp_path / "out")
    assert "verl has no method dpo" in str(refused)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "mine.txt").write_text("mine")
    _, _, refused = typed("export-recipe", recipe_file(tmp_path), "--to", "trl", "--output", output)
    assert "not empty" in str(refused)
    assert [p.name for p in output.iterdir()] == ["mine.txt"]


def test_a_recipe_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path)
    before = recipe.read_text()
    _, _, refused = typed("import-recipe", recipe, "--from", "trl", "--output", recipe)
    assert "there already" in str(refused)
    assert recipe.read_text() == before
