"""Detects the language of a text from its letters (py3langid; Lui and Baldwin 2012)."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import cast

from py3langid.langid import MODEL_FILE, LanguageIdentifier

_NO_PROSE = re.compile(r"```.*?```|`[^`]*`|\$[^$]*\$|<[^<>]*>|\\[a-z]+", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]+")

LOOKED_AT = 4_000
"""Letters that are read to detect a language."""
SHORTEST = 20
"""A text with fewer letters is too short to detect its language."""


def prose(text: str) -> str:
    """The words of a text without code blocks, formulas and tags, at most `LOOKED_AT` letters."""
    return " ".join(_WORD.findall(_NO_PROSE.sub(" ", text)))[:LOOKED_AT]


def language_of(text: str, *, shortest: int = SHORTEST) -> str | None:
    """The likeliest language (ISO 639-1), or `None` if fewer than `shortest` letters are left:
    `language_of("Wo ist der Bahnhof, bitte?") == "de"`."""
    ranked = ranking(text, shortest=shortest)
    return ranked[0][0] if ranked else None


def written_in(text: str, languages: Collection[str], *, shortest: int = SHORTEST) -> float | None:
    """Probability from 0 to 1 that a text is in one of `languages`, or `None` if it is too
    short."""
    ranked = ranking(text, shortest=shortest)
    return sum(share for code, share in ranked if code in languages) if ranked else None


def ranking(text: str, *, shortest: int = SHORTEST) -> list[tuple[str, float]]:
    """Every language with its probability, likeliest first; empty for too short a text."""
    letters = prose(text)
    if len(letters) < shortest:
        return []
    return [(code, float(share)) for code, share in _identifier().rank(letters)]


def known_languages() -> frozenset[str]:
    """The language codes that can be detected."""
    return frozenset(_identifier().labels)


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    return cast(LanguageIdentifier, LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True))
