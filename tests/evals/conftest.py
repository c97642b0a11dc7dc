"""What evals ask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from strop.demo.model import raw_model
from strop.demo.world import solution, user
from strop.engines.local import engine as local
from strop.model import network
from strop.model.load import load_for_inference
from strop.recipe.loading.load import load
from strop.recipe.study import Study
from strop.recipe.suite import Suite
from tests.support.runs import EQUATIONS, WriteRows
from tests.support.studies import STUDY, Planted, PlantedAnswers
from tests.support.suites import TASKS, MakeSuite


@pytest.fixture(scope="session")
def policy(model_folder: Path) -> network.Policy:
    """The tiny model, to be asked only: one for all."""
    return load_for_inference(str(model_folder))


@pytest.fixture
def make_suite(tmp_path: Path, write_rows: WriteRows) -> MakeSuite:
    write_rows("tasks.jsonl", TASKS)
    pairs = [
        {"prompt": user(e), "chosen": solution(e), "rejected": solution(e, filler=True)}
        for e in EQUATIONS[:9]
    ]
    write_rows("pairs.jsonl", pairs)

    def make(*tasks: dict[str, Any], **options: Any) -> Suite:
        path = tmp_path / "suite.yaml"
        path.write_text(yaml.safe_dump({"name": "small", "tasks": list(tasks), **options}))
        return load(Suite, path)

    return make


@pytest.fixture(scope="session")
def base_folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model than `model_folder`, of the same make."""
    folder = tmp_path_factory.mktemp("base")
    raw_model(tokenizer, seed=1, width=32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def study(tmp_path: Path, write_rows: WriteRows) -> Callable[..., Study]:
    """`STUDY` with changes, over six equations."""
    write_rows(
        "tasks.jsonl",
        [
            {"prompt": user(e), "answer": str(e.x), "id": str(i)}
            for i, e in enumerate(EQUATIONS[:6])
        ],
    )
    (tmp_path / "rewards.py").write_text(
        "def even(prompts, completions, **columns):\n"
        "    return [float(len(c[-1]['content']) % 2 == 0) for c in completions]\n"
        "def opens(prompts, completions, **columns):\n"
        "    return [float(c[-1]['content'].startswith(('so', 'then'))) for c in completions]\n"
        "def digits(prompts, completions, **columns):\n"
        "    return [float(sum(x.isdigit() for x in c[-1]['content'])) for c in completions]\n"
        "def no_sevens(prompts, completions, **columns):\n"
        "    return [None if '7' in c[-1]['content'] else 1.0 for c in completions]\n"
    )

    def make(**changes: Any) -> Study:
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({**STUDY, **changes}))
        return load(Study, path)

    return make


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> type[Planted]:
    monkeypatch.setattr(local, "LocalSampler", Planted)
    monkeypatch.setattr(local, "Continuous", PlantedAnswers)
    Planted.says = {
        "base": (["no 0"], ["so X", "then X", "so 99", "oh 98"], ["now really X"]),
        "model": (["it is surely X"], ["so X"] * 4, ["but 0"]),
    }
    return Planted
