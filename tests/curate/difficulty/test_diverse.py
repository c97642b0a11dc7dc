"""k-centre greedy against brute force, and what its vectors are."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from tokenizers import Tokenizer, models, pre_tokenizers

from strop.curate.difficulty.diverse import Cover, central, embedded, k_centre, tfidf
from strop.errors import ModelError


def unit(seed: int, count: int, size: int = 3) -> np.ndarray[Any, Any]:
    vectors = np.random.default_rng(seed).normal(size=(count, size))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def euclidean_radius(vectors: np.ndarray[Any, Any], centres: tuple[int, ...]) -> float:
    gaps = np.linalg.norm(vectors[:, None] - vectors[None, list(centres)], axis=-1)
    return float(gaps.min(1).max())


def greedy(vectors: np.ndarray[Any, Any], k: int, first: int) -> list[int]:
    """The same choice by measuring every distance anew."""
    centres = [first]
    while len(centres) < k:
        left = [n for n in range(len(vectors)) if n not in centres]
        gaps = {n: min(np.linalg.norm(vectors[n] - vectors[c]) for c in centres) for n in left}
        centres.append(max(left, key=lambda n: gaps[n]))
    return centres


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(4, 9), st.integers(1, 4))
def test_within_twice_the_best_there_is(seed: int, count: int, k: int) -> None:
    """Gonzalez 1985; the best radius by trying all choices."""
    vectors = unit(seed, count)
    cover = k_centre(vectors, k, first=0, order=range(count))
    assert list(cover.centres) == greedy(vectors, k, 0)
    best = min(euclidean_radius(vectors, chosen) for chosen in combinations(range(count), k))
    found = euclidean_radius(vectors, cover.centres)
    assert found <= 2 * best + 1e-9
    # |a - b|^2 = 2 (1 - cos) for vectors of length 1
    assert cover.radius == pytest.approx(found**2 / 2, abs=1e-9)


def test_sparse_and_dense_are_the_same() -> None:
    vectors = unit(1, 50, 6)
    vectors[np.abs(vectors) < 0.3] = 0
    dense = k_centre(vectors, 10, first=3, order=range(50))
    assert k_centre(csr_matrix(vectors), 10, first=3, order=range(50)) == dense


def test_ties_go_by_order_and_all_can_be_picked() -> None:
    same = np.ones((4, 1))
    assert k_centre(same, 9, first=2, order=[3, 0, 2, 1]) == Cover((2, 1, 3, 0), 0.0)


def test_central() -> None:
    vectors = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    assert central(vectors, range(3)) == 1
    assert central(np.eye(3), [2, 0, 1]) == 1


def test_tfidf_by_hand() -> None:
    """Weights 1 + ln(count) times ln((1 + n) / (1 + holders)) + 1, then length 1."""
    rows = tfidf(["red red blue", "blue 1,000", "blue"]).toarray()
    blue, rare = 1.0, np.log(4 / 2) + 1
    expected = np.array([(1 + np.log(2)) * rare, blue])
    assert sorted(rows[0][rows[0] > 0]) == pytest.approx(
        sorted(expected / np.linalg.norm(expected))
    )
    assert rows[2].max() == pytest.approx(1.0)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(3))


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    """A model2vec folder of six words, each its own direction but `cat` and `kitten`."""
    from model2vec import StaticModel

    words = ["[UNK]", "cat", "kitten", "sum", "tax", "law"]
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    vectors = np.eye(6, 5, -1)
    vectors[2] = [0.9, 0.1, 0, 0, 0]
    folder = tmp_path / "words"
    StaticModel(vectors.astype(np.float32), tokenizer).save_pretrained(str(folder))
    return folder


def test_embeddings_know_what_words_mean(embeddings: Path) -> None:
    texts = ["cat cat", "kitten", "tax", "law"]
    vectors = embedded(texts, str(embeddings))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4))
    by_meaning = k_centre(vectors, 3, first=0, order=range(4))
    assert set(by_meaning.centres) == {0, 2, 3}
    by_words = k_centre(tfidf(texts), 2, first=0, order=range(4))
    assert by_words.centres == (0, 1), "to TF-IDF all of them are equally far"


def test_no_embeddings_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model2vec model"):
        embedded(["a"], str(tmp_path))
