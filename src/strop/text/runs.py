"""Cuts a long list into batches of limited size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def runs(
    items: Iterable[T], most: int, size: Callable[[T], int] | None = None
) -> Iterator[list[T]]:
    """Runs of neighbours whose sizes (`len` by default) add up to at most `most`.

    `list(runs(["ab", "c", "defgh", "i"], 3))` is `[["ab", "c"], ["defgh"], ["i"]]`: an item that
    is larger than `most` is a run of its own.
    """
    measured: Callable[[Any], int] = size or len
    run: list[T] = []
    held = 0
    for item in items:
        if run and held + measured(item) > most:
            yield run
            run, held = [], 0
        run.append(item)
        held += measured(item)
    if run:
        yield run
