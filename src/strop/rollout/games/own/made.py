"""An object of a class in a user's file, or why there is none."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from strop.errors import EndedBySignal, RewardError, WorldError
from strop.rewards.own.functions import offered, own_names

T = TypeVar("T")

FAULTS = (Exception, SystemExit)
"""What a user's code may raise. A `SystemExit` of a signal's (`EndedBySignal`) is none."""


class BrokenRuleError(Exception):
    """What a game or a player does not keep to."""


def expect(kept: bool, said: str) -> None:
    if not kept:
        raise BrokenRuleError(said)


def guarded(call: Callable[[], T]) -> T:
    """What a user's code gives. Raises `BrokenRuleError` that names what it raised."""
    try:
        return call()
    except (EndedBySignal, BrokenRuleError):
        raise
    except FAULTS as error:
        raise BrokenRuleError(f"{type(error).__name__}: {error}") from error


def made_of(path: Path, name: str, methods: Sequence[str]) -> Any:
    """An object of the class, made without arguments. Raises `WorldError` for a class that is not
    there, lacks a method, or cannot be made."""
    try:
        names = own_names(path)
    except RewardError as error:
        raise WorldError(error.problem, where=error.where, fix=error.fix) from None
    found = names.get(name)
    if not inspect.isclass(found):
        own = [
            n for n, v in names.items() if inspect.isclass(v) and v.__module__ == names["__name__"]
        ]
        raise WorldError(f"the file has no class {name!r}", where=str(path), fix=offered(own, name))
    lacking = [one for one in methods if not callable(getattr(found, one, None))]
    if lacking:
        raise refused(path, f"{name} has no method {', '.join(lacking)}")
    try:
        return guarded(found)
    except BrokenRuleError as error:
        raise refused(path, f"{name}() raised {error}") from None


def refused(path: Path, said: str) -> WorldError:
    return WorldError(
        said,
        where=str(path),
        fix='write the class after the protocol in docs/environments.md, "Self-play"',
    )
