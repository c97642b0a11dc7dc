"""Tiny models and data, made once per test session."""

from __future__ import annotations

import os

# tiny models gain nothing from more threads, and lose much where several workers have them
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import transformers

from strop.demo.model import train_tokenizer
from strop.demo.world import all_equations, solution
from strop.model.load import load_policy
from strop.model.network import Policy
from strop.recipe.train.model import ModelRecipe
from strop.sandbox import tiers
from strop.sandbox.client import Sandbox
from strop.sandbox.confine import landlock

pytest.register_assert_rewrite("tests.support")
from tests.support.models import sharp_model  # noqa: E402 - its asserts are rewritten first
from tests.support.runs import Finished, WriteRows, write_jsonl, write_recipes  # noqa: E402

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """The demo's tokenizer: digits apart, two roles, EOS `<|end|>`."""
    texts = [text for e in all_equations()[::7] for text in (e.question, solution(e))]
    return train_tokenizer(texts, vocabulary=325)


@pytest.fixture(scope="session")
def model_folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved Qwen3 of three narrow layers with that tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    sharp_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def wide_folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, wide enough that 8-bit AdamW takes its matrices."""
    folder = tmp_path_factory.mktemp("wide")
    sharp_model(tokenizer, width=64).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def policy(model_folder: Path) -> Policy:
    """That model, to be trained: a fresh one for each test."""
    return load_policy(ModelRecipe(path=str(model_folder)))


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteRows:
    """Write rows as JSONL under the test's own folder."""

    def write(name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        return write_jsonl(tmp_path / name, rows)

    return write


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A sandbox of the tier that this kernel has by itself."""
    if landlock.version() == 0:
        pytest.skip("this kernel has no Landlock: no candidate is run on it")
    with tiers.start("landlock") as started:
        yield started


@pytest.fixture(scope="session")
def finished(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """Runs that are made once and only looked at: `finished("dpo", "run.steps=4")`."""
    runs = Finished(tmp_path_factory.mktemp("finished"), model_folder)
    yield runs
    assert not runs.changed(), "a test changed a run that others look at"


@pytest.fixture
def recipes(tmp_path: Path, model_folder: Path) -> dict[str, Path]:
    """A small recipe of every method over generated data, under the test's own folder."""
    return write_recipes(tmp_path, model_folder)
