"""Texts that are too short or too long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from strop.curate.clean.faults import Fault
from strop.errors import UsageError

Unit = Literal["characters", "words", "tokens"]


@dataclass(frozen=True, slots=True)
class LengthLimits:
    """From `least` to `most` of a unit, both allowed: `LengthLimits("words", least=5, most=2000)`;
    without `most` no text is too long."""

    unit: Unit
    least: int = 0
    most: int | None = None

    def __post_init__(self) -> None:
        if self.most is not None and self.most < self.least:
            raise UsageError(
                f"no text has at least {self.least} and at most {self.most} {self.unit}",
                fix="swap the two limits",
            )


def out_of_length(text: str, limits: LengthLimits, tokenizer: Any = None) -> Fault | None:
    """The fault `too_short` or `too_long`: `Fault("too_short", "3 words, fewer than 5")`.

    Tokens are those of `tokenizer`, without special ones; raises `UsageError` where they are asked
    for without it.
    """
    if limits.unit == "tokens" and tokenizer is None:
        raise UsageError("a length in tokens needs a tokenizer", fix="give one, or count words")
    count = _COUNTS[limits.unit](text, tokenizer)
    if count < limits.least:
        return Fault("too_short", f"{count} {limits.unit}, fewer than {limits.least}")
    if limits.most is not None and count > limits.most:
        return Fault("too_long", f"{count} {limits.unit}, more than {limits.most}")
    return None


def _characters(text: str, tokenizer: Any) -> int:
    return len(text)


def _words(text: str, tokenizer: Any) -> int:
    return len(text.split())


def _tokens(text: str, tokenizer: Any) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False))


_COUNTS: dict[Unit, Callable[[str, Any], int]] = {
    "characters": _characters,
    "words": _words,
    "tokens": _tokens,
}
