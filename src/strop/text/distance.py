"""How far two texts are from each other."""

from __future__ import annotations

from rapidfuzz.distance import Levenshtein

LONG = 4_000
"""Characters above which texts are compared word by word."""


def edit_distance(one: str, other: str) -> float:
    """Levenshtein's distance over the longer length: 0 for equal texts, 1 for nothing shared.

    `edit_distance("x = 3", "x = 4") == 0.2`. Of texts over 4,000 characters it counts words, since
    the time grows with the square of the length.
    """
    if max(len(one), len(other)) > LONG:
        return float(Levenshtein.normalized_distance(one.split(), other.split()))
    return float(Levenshtein.normalized_distance(one, other))
