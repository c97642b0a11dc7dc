"""Functions of a user, as tools."""

from __future__ import annotations

import os
import time
from pathlib import Path


def area(width: float, height: float = 1.0) -> float:
    """
    The area of a rectangle.

    Args:
        width: Its width.
        height: Its height.
    """
    return width * height


async def later(word: str) -> str:
    """
    Says a word.

    Args:
        word: The word.
    """
    print("not an answer")
    return word


def shout(word: str) -> str:
    """
    Fails.

    Args:
        word: The word.
    """
    raise LookupError(f"no {word}")


def hang(seconds: float) -> str:
    """
    Waits.

    Args:
        seconds: How long.
    """
    time.sleep(seconds)
    return "awake"


def end(marker: str) -> str:
    """
    Ends its process as often as the marker says.

    Args:
        marker: A file that holds how often.
    """
    left = int(Path(marker).read_text())
    Path(marker).write_text(str(left - 1))
    if left > 0:
        os._exit(3)
    return "alive"


def unhinted(word) -> str:  # type: ignore[no-untyped-def]
    """
    Has no type hint.

    Args:
        word: The word.
    """
    return str(word)


def undescribed(word: str) -> str:
    """Does not say what its argument is."""
    return word


def any_number(*words: str) -> str:
    """
    Takes any number.

    Args:
        words: The words.
    """
    return " ".join(words)


def unnamed(word: str, /) -> str:
    """
    Takes an argument by its place.

    Args:
        word: The word.
    """
    return word


def reads() -> str:
    """Reads a line of standard input."""
    return input()


def may_be_none(word: str | None, count: int | None = None) -> str:
    """
    Says what it was given.

    Args:
        word: The word.
        count: How many.
    """
    return f"{word} {count}"
