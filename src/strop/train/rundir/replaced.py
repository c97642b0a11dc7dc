"""A run that another one overwrites is kept aside until the new one takes its first step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from strop.files import move, remove
from strop.train.rundir.directory import REPLACED, clear, left_by_a_run


def set_aside(folder: Path) -> None:
    """Move a run out of the way; of two that never took a step the older one is kept."""
    aside = folder / REPLACED
    if aside.exists():
        clear(folder)
        return
    aside.mkdir()
    for part in left_by_a_run(folder):
        move(part, aside / part.name)


def let_go(folder: Path) -> None:
    """Delete what was set aside: the new run takes its first step."""
    remove(folder / REPLACED)


@contextmanager
def kept_aside(folder: Path) -> Iterator[None]:
    """Puts the overwritten run back where the new one ends before `let_go`."""
    try:
        yield
    finally:
        aside = folder / REPLACED
        if aside.exists():
            clear(folder)
            for part in reversed(left_by_a_run(aside)):
                move(part, folder / part.name)
            remove(aside)
