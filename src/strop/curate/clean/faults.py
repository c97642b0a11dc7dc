"""What a look at one text ends in: the reason to leave it out, or the text as it was mended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FaultKind = Literal["damaged", "language", "refusal", "disclaimer", "too_short", "too_long"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a text is left out: `Fault("too_short", "3 words, at least 5 are asked for")`.

    `detail` says what was seen in the terms of the check, and never quotes the text, which may
    hold what nobody should read in a report.
    """

    kind: FaultKind
    detail: str


@dataclass(frozen=True, slots=True)
class Mended:
    """A text and what was done to it: `Mended("café", ("mojibake",))`; no repairs, no change."""

    text: str
    repairs: tuple[str, ...]
