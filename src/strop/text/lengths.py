"""Rewards of lengths and repetition: pure functions of counts and words."""

from __future__ import annotations

import math


def overlong_penalty(length: int, most: int, buffer: int) -> float:
    """0 up to `most - buffer`, then falling linearly to -1 at `most` and beyond.

    Yu et al. 2025 (DAPO, arXiv 2503.14476), equation 13; a cut answer counts as one of `most`.
    """
    if not buffer:
        return -1.0 if length > most else 0.0
    return -min(1.0, max(0.0, (length - (most - buffer)) / buffer))


def within(length: int, least: int, most: int, fall: int) -> float:
    """1 between `least` and `most`, falling linearly to 0 over `fall` on either side."""
    beyond = max(least - length, length - most, 0)
    if not beyond:
        return 1.0
    return max(0.0, 1.0 - beyond / fall) if fall else 0.0


def cosine(length: int, most: int, short: float, long: float) -> float:
    """From `short` at 0 to `long` at `most` along half a cosine.

    Yeo et al. 2025 (arXiv 2502.03373), section 4.1, for one of its branches.
    """
    share = min(1.0, length / most)
    return long + 0.5 * (short - long) * (1.0 + math.cos(math.pi * share))


def repeated_share(text: str, n: int) -> float:
    """Share of word n-grams that occurred before: `repeated_share("a b a b a b", 2) == 0.6`."""
    words = text.split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0
