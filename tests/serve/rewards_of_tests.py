"""A reward that any answer has: the shorter, the better."""

from __future__ import annotations

from typing import Any


def short_answer(completions: list[Any], **_: Any) -> list[float]:
    return [-float(len(said if isinstance(said, str) else said[0]["content"]))
            for said in completions]  # fmt: skip
