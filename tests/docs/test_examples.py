"""Every recipe in examples/methods passes a dry run; docs/methods.md knows every method."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from pathlib import Path

import pytest

from strop.demo.world import assistant, solution, user
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.methods import METHODS, Recipe, method_of
from strop.train.preflight.prepare import Prepared, prepare
from tests.support import ROOT
from tests.support.recipe_keys import recipe_keys
from tests.support.runs import EQUATIONS, WriteRows, write_teacher

EXAMPLES = sorted((ROOT / "examples/methods").glob("*.yaml"))
PAGE = (ROOT / "docs/methods.md").read_text()
BEYOND = {"qlora": "dpo", "lora_grpo": "grpo"}
"""Examples of an adapter, and the method that each of them uses."""

FILES = {"document": ("new", "old"), "demonstration": ("demonstrations", "general"),
         "preference": ("pairs",), "feedback": ("thumbs",), "task": ("tasks",)}  # fmt: skip


@pytest.fixture
def beside(tmp_path: Path, model_folder: Path, write_rows: WriteRows) -> Path:
    """A folder with everything that the examples name: a model and one file of each kind."""
    shutil.copytree(model_folder, tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    # as many positions as the models have that the examples are for
    config["max_position_embeddings"] = 32768
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    write_teacher(tmp_path, tmp_path / "model")
    answers = [(user(e), solution(e), solution(e, filler=True)) for e in EQUATIONS]
    rows = {
        "document": [{"text": good} for _, good, _ in answers],
        "demonstration": [{"prompt": p, "completion": assistant(good)} for p, good, _ in answers],
        "preference": [{"prompt": p, "chosen": good, "rejected": bad} for p, good, bad in answers],
        "feedback": [
            {"prompt": p, "completion": bad if n % 3 else good, "label": n % 3 == 0}
            for n, (p, good, bad) in enumerate(answers)
        ],
        "task": [{"prompt": user(e), "answer": str(e.x)} for e in EQUATIONS],
    }
    for kind, names in FILES.items():
        for name in names:
            write_rows(f"{name}.jsonl", rows[kind])
    return tmp_path


@pytest.fixture(autouse=True)
def computes_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples are for processors that compute bfloat16; others refuse it (test_arithmetic)."""
    monkeypatch.setattr("strop.train.preflight.refuse.emulates_bfloat16", lambda device: False)


def dry_run(example: Path, beside: Path) -> tuple[Recipe, Prepared]:
    """The example as it stands, read from a folder of its own."""
    recipe = load_recipe(shutil.copy(example, beside))
    return recipe, prepare(recipe, resume=False, overwrite=False, force=False)


def test_there_is_one_example_for_every_method() -> None:
    names = {example.stem for example in EXAMPLES}
    assert names == METHODS.keys() | BEYOND.keys()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_comment_names_the_paper_and_whose_the_settings_are(example: Path) -> None:
    first, second, third = example.read_text().splitlines()[:3]
    assert first.startswith("# ")
    assert re.search(r"arXiv \d{4}\.\d{5}\b|arXiv \d{7}|no paper", first)
    assert second.startswith("# ")
    assert re.search(r"usual|paper|code|GPT|QLoRA|ScaleRL", second, flags=re.I)
    assert not third.startswith("#")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_passes_a_dry_run(example: Path, beside: Path) -> None:
    recipe, prepared = dry_run(example, beside)
    assert recipe.method == BEYOND.get(example.stem, example.stem)
    assert prepared.folder == beside / "runs" / example.stem
    assert not prepared.folder.exists()
    own = sum(Path(s.path).stem in FILES[method_of(recipe).records] for s in recipe.data)
    assert prepared.checks["records"] == own * len(EQUATIONS)
    assert prepared.checks["dropped"] == 0
    assert prepared.checks.get("cut", 0) == 0
    assert prepared.checks.get("ends_in_eos", 1.0) == 1.0
    assert ("replayed" in prepared.checks) == (own < len(recipe.data))
    assert prepared.total_steps >= 1


def test_the_dpo_example_replays_demonstrations_in_its_shares(beside: Path) -> None:
    _, prepared = dry_run(ROOT / "examples/methods/dpo.yaml", beside)
    drawn = prepared.mixture.draw(0)
    assert (len(drawn.own), len(drawn.replay)) == (64, 16)
    assert prepared.checks["replayed"] == len(EQUATIONS)


def rows_of_the_table() -> dict[str, list[str]]:
    """Method -> its cells, of the one table with a row for every method."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.splitlines()
        if line.startswith("| `")
    ]
    rows = {row[0].strip("`"): row for row in cells}
    assert len(rows) == len(cells)
    return rows


def test_the_table_has_a_row_for_every_method() -> None:
    rows = rows_of_the_table()
    assert rows.keys() == METHODS.keys()
    assert all(len(row) == 6 and all(row) for row in rows.values())


@pytest.mark.parametrize("method", METHODS)
def test_the_table_leads_to_code(method: str) -> None:
    path = rows_of_the_table()[method][-1].strip("`")
    whole = path if path.startswith("strop.") else f"strop.losses.{path}"
    module, _, name = whole.rpartition(".")
    assert callable(getattr(importlib.import_module(module), name))


def test_keys_that_the_page_names_exist() -> None:
    named = set(re.findall(r"`((?:model|data|text|objective|rollout|optim|run)\.[\w.]+)", PAGE))
    assert len(named) > 20
    assert named <= recipe_keys()
