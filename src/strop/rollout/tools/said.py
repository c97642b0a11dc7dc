"""What a Python function returned, as the text that a policy reads.

Standard library only: it runs in the processes of users' code.
"""

from __future__ import annotations

from typing import Any

LONGEST = 1_000_000
"""Characters that a tool's result may have. No model reads as many."""


class NoTextError(Exception):
    """A result cannot be made text."""


def text_of(result: Any) -> str:
    """A result as text: of a list of content blocks their texts, else `str`. Raises
    `NoTextError`."""
    try:
        if isinstance(result, list) and result and all(isinstance(part, dict) for part in result):
            kinds = {part.get("type") for part in result}
            if "text" in kinds and kinds != {"text"}:
                raise NoTextError(f"a result has parts that are no text: {sorted(map(str, kinds))}")
            if kinds == {"text"}:
                return readable("".join(str(part["text"]) for part in result))
        return readable(str(result))
    except NoTextError:
        raise
    except Exception as error:  # noqa: BLE001 - any object may stand here
        raise NoTextError(f"{type(error).__name__}: {error}") from None


def readable(text: str) -> str:
    """The text without lone surrogates, which no tokenizer reads."""
    return text.encode("utf-8", "replace").decode()


def cut(text: str, longest: int) -> str:
    """The text, or as much of its beginning as may be told, and what is left out."""
    if len(text) <= longest:
        return text
    return f"{text[:longest]}\n[{len(text) - longest} characters more are left out]"
