"""Semantic duplicates, with a static model in which a few words mean the same."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from strop.curate.clean.semantic import find_semantic_duplicates
from strop.errors import ModelError, UsageError
from strop.types import Demonstration, Origin, Preference

WORDS = ("[UNK]", "the", "car", "automobile", "red", "blue", "drives", "3", "4", "cat", "sleeps")
HERE = Origin("a.jsonl", 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each word has a direction of its own; car and automobile nearly the same one."""
    model2vec = pytest.importorskip("model2vec", reason="the semhash extra is not installed")
    pytest.importorskip("semhash", reason="the semhash extra is not installed")
    tokenizer = Tokenizer(WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    vectors = np.eye(len(WORDS), dtype=np.float32)
    vectors[3] = vectors[2] + 0.3 * vectors[3]
    folder = tmp_path_factory.mktemp("static")
    model2vec.StaticModel(vectors, tokenizer).save_pretrained(folder)
    return folder


def shown(prompt: str, completion: str = "red") -> Demonstration:
    return Demonstration(prompt, completion, {}, HERE)


def first(model: Path, *records: Demonstration, threshold: float = 0.9) -> list[int]:
    found = find_semantic_duplicates(records, model, threshold=threshold)
    places: list[int] = found.records.first.tolist()
    return places


def test_other_words_of_one_meaning_repeat_and_another_meaning_does_not(model: Path) -> None:
    found = find_semantic_duplicates(
        [shown("the car drives"), shown("the cat sleeps"), shown("the automobile drives"),
         shown("The CAR drives!"), shown("the automobile drives", "blue")], model
    )  # fmt: skip
    assert found.records.first.tolist() == [0, 1, 0, 0, 4]
    assert found.records.exact.tolist() == [False, False, False, True, False]
    assert found.plain()["near_duplicate_prompts"] == 1


def test_other_numbers_are_another_question(model: Path) -> None:
    texts = ("the car drives 3", "the automobile drives 4", "the automobile drives 3")
    assert first(model, *map(shown, texts)) == [0, 1, 0]


def test_the_threshold_decides(model: Path) -> None:
    """car against automobile: cosine 1 / sqrt(1 + 0.3^2) = 0.958."""
    both = shown("car"), shown("automobile")
    assert first(model, *both, threshold=0.95) == [0, 0]
    assert first(model, *both, threshold=0.965) == [0, 1]
    assert first(model) == []


def test_swapped_pairs_do_not_repeat(model: Path) -> None:
    pairs = [Preference("the cat", *answers, {}, HERE) for answers in
             (("car", "blue"), ("blue", "automobile"), ("automobile", "blue"))]  # fmt: skip
    found = find_semantic_duplicates(pairs, model)
    assert found.records.first.tolist() == [0, 1, 0]


def test_a_missing_extra_and_a_folder_without_a_model_are_said(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="no model2vec model"):
        find_semantic_duplicates([], tmp_path)
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        find_semantic_duplicates([], tmp_path)
    with pytest.raises(UsageError, match=r"similarity of 1\.5"):
        find_semantic_duplicates([], model, threshold=1.5)
    monkeypatch.setitem(sys.modules, "semhash", None)
    with pytest.raises(UsageError, match=r"strop\[semhash\]"):
        find_semantic_duplicates([], model)
