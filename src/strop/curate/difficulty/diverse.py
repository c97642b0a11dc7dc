"""The records that cover all others best: k-centre greedy on vectors of their texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.curate.embeddings import static_model
from strop.data.duplicates import words
from strop.errors import UsageError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cover:
    """`Cover(centres=(17, 3, 40), radius=0.62)`: which texts were picked, in the order of picking,
    and the largest cosine distance (0 to 2) of any text to the nearest of them."""

    centres: tuple[int, ...]
    radius: float


def k_centre(vectors_ND: Any, k: int, *, first: int, order: Sequence[int]) -> Cover:
    """k of N vectors so that the farthest of all is near one of them.

    Greedily: always the vector farthest from all picked ones next, so that the radius is at most
    twice the smallest possible one in Euclidean distance (Gonzalez 1985, Theoretical Computer
    Science 38:293-306; for active learning Sener and Savarese 2018, arXiv 1708.00489, algorithm 1).
    `vectors_ND` are of length 1 (or 0), dense or sparse; `first` is picked first, and of equally
    far ones that with the lowest `order`.
    """
    ranks = np.asarray(order)
    nearest_N = _similarity(vectors_ND, first)
    nearest_N[first] = np.inf
    centres = [first]
    while len(centres) < min(k, len(ranks)):
        # what rounding alone tells apart is equally far
        farthest = np.flatnonzero(nearest_N <= nearest_N.min() + 1e-12)
        pick = int(farthest[ranks[farthest].argmin()])
        centres.append(pick)
        nearest_N = np.maximum(nearest_N, _similarity(vectors_ND, pick))
        nearest_N[pick] = np.inf
    left = nearest_N[np.isfinite(nearest_N)]
    return Cover(tuple(centres), float(1.0 - left.min()) if len(left) else 0.0)


def _similarity(vectors_ND: Any, number: int) -> Floats:
    """Cosine similarity of all vectors to one of them, [N]."""
    # a row of a dense array or of a sparse one
    own_D = np.asarray(vectors_ND[[number]].sum(axis=0), dtype=float).ravel()
    found: Floats = np.asarray(vectors_ND @ own_D, dtype=float).ravel()
    return found


def central(vectors_ND: Any, order: Sequence[int]) -> int:
    """The vector nearest to the mean of all; of equally near ones that with the lowest `order`."""
    mean_D = np.asarray(vectors_ND.mean(axis=0), dtype=float).ravel()
    near_N = np.asarray(vectors_ND @ mean_D, dtype=float).ravel()
    ranks = np.asarray(order)
    best = np.flatnonzero(near_N >= near_N.max() - 1e-12)
    return int(best[ranks[best].argmin()])


def tfidf(texts: Sequence[str]) -> Any:
    """A sparse row a text, of length 1: counts of words (log of them) times how rare a word is.

    Raises `UsageError` without the extra `diverse`.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise UsageError("--diverse needs scikit-learn, which is not installed",
                         fix="pip install 'strop[diverse]'") from None  # fmt: skip
    vectorizer = TfidfVectorizer(analyzer=words, sublinear_tf=True, dtype=np.float64)
    return vectorizer.fit_transform(texts)


def embedded(texts: Sequence[str], folder: str) -> Any:
    """A dense row a text, of length 1, from a local model2vec folder; raises as `static_model`."""
    model = static_model(Path(folder), "diverse")
    vectors_ND = np.asarray(model.encode(list(texts)), dtype=float)
    lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return vectors_ND / np.where(lengths_N1 > 0, lengths_N1, 1.0)
