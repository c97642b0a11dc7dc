"""Scores how an answer is written, not what it says: length, repetition, language, pattern,
likeness."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from rapidfuzz import fuzz

from strop.text.language import language_of
from strop.text.lengths import cosine, overlong_penalty, repeated_share, within
from strop.text.parse import plain, written
from strop.types import Text

Unit = Literal["tokens", "characters", "words"]


def regex(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    pattern: str,
    whole: bool = False,
    **columns: object,
) -> list[float | None]:
    """1.0 where `pattern` is found (with `whole`: where it is the whole completion), else 0.0."""
    wanted = re.compile(pattern, re.DOTALL)
    find = wanted.fullmatch if whole else wanted.search
    return [float(find(written(completion)) is not None) for completion in completions]


def overlong(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    most: int,
    buffer: int,
    unit: Unit = "tokens",
    completion_ids: Sequence[Sequence[int]] | None = None,
    **columns: object,
) -> list[float | None]:
    """0 up to `most - buffer`, falling in a line to -1 at `most` and beyond (DAPO)."""
    lengths = _lengths(completions, unit, completion_ids)
    return [overlong_penalty(count, most, buffer) for count in lengths]


def length(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    least: int,
    most: int,
    fall: int = 0,
    unit: Unit = "tokens",
    completion_ids: Sequence[Sequence[int]] | None = None,
    **columns: object,
) -> list[float | None]:
    """1.0 between `least` and `most`, falling in a line to 0 over `fall` on either side."""
    lengths = _lengths(completions, unit, completion_ids)
    return [within(count, least, most, fall) for count in lengths]


def cosine_length(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    most: int,
    short: float = 1.0,
    long: float = 0.5,
    unit: Unit = "tokens",
    completion_ids: Sequence[Sequence[int]] | None = None,
    **columns: object,
) -> list[float | None]:
    """From `short` for an empty answer to `long` at `most`, along half a cosine; a gate multiplies
    it with correctness."""
    lengths = _lengths(completions, unit, completion_ids)
    return [cosine(count, most, short, long) for count in lengths]


def repetition(
    prompts: Sequence[Text], completions: Sequence[Text], *, n: int = 4, **columns: object
) -> list[float | None]:
    """Minus the share of a completion's word `n`-grams that occurred before in it: 0 to -1."""
    return [-repeated_share(written(completion), n) for completion in completions]


def similarity(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    answer: Sequence[object],
    **columns: object,
) -> list[float | None]:
    """Likeness to `answer` from 0 to 1: the normalised indel similarity of the two texts; `None`
    where there is no answer."""
    return [
        None if gold is None else fuzz.ratio(written(completion).strip(), str(gold).strip()) / 100
        for completion, gold in zip(completions, answer, strict=True)
    ]


def language(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    code: str | None = None,
    shortest: int = 20,
    **columns: object,
) -> list[float | None]:
    """1.0 where a completion is in the prompt's language (or in `code`, ISO 639-1), else 0.0.

    Code blocks, formulas and tags are left out before looking. `None` if fewer than `shortest`
    letters are left in either, too few to detect a language.
    """
    return [
        _same_language(plain(prompt), written(completion), code, shortest)
        for prompt, completion in zip(prompts, completions, strict=True)
    ]


def _same_language(prompt: str, completion: str, code: str | None, shortest: int) -> float | None:
    wanted = code or language_of(prompt, shortest=shortest)
    spoken = language_of(completion, shortest=shortest)
    return None if wanted is None or spoken is None else float(spoken == wanted)


def _lengths(
    completions: Sequence[Text], unit: Unit, ids: Sequence[Sequence[int]] | None
) -> list[int]:
    if unit == "tokens":
        if ids is None:
            raise ValueError("lengths in tokens need completion_ids; outside training use words")
        return [len(tokens) for tokens in ids]
    texts = [written(completion) for completion in completions]
    return [len(text) if unit == "characters" else len(text.split()) for text in texts]


def format_tags(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    tags: Sequence[str] = ("answer",),
    **columns: object,
) -> list[float | None]:
    """Share of `tags` that appear exactly once, opened before closed, with something between.

    1.0 for `...<answer>5</answer>`; 0.0 for a missing, repeated, unclosed or empty tag.
    """
    texts = [written(completion) for completion in completions]
    return [sum(_well_formed(text, tag) for tag in tags) / len(tags) for text in texts]


def _well_formed(text: str, tag: str) -> bool:
    opening, closing = f"<{tag}>", f"</{tag}>"
    once = text.count(opening) == 1 and text.count(closing) == 1
    return once and bool(re.search(f"{re.escape(opening)}.*\\S.*{re.escape(closing)}", text, re.S))
