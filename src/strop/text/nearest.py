"""The name that was probably meant, for messages about one that is not there."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

ALIKE = 0.6


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"did you mean 'random'? "` for `randm`; empty where no known name is near."""
    near = get_close_matches(name, list(known), 1, ALIKE)
    return f"did you mean {near[0]!r}? " if near else ""
