"""Exceptions across the link, so that a test may catch them, read their `args` or print them.

The candidate's side describes an exception; the referee rebuilds it as the first class among its
bases that Python or its library defines. Standard library only.
"""

from __future__ import annotations

import binascii
import builtins
import copy
import decimal
import json
import re
import statistics
import struct
import zlib
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from queue import Empty, Full
from typing import Any

LONGEST_SAID = 10_000
"""Characters of an exception's text."""

OWN_FIELDS = ("errno", "strerror", "filename", "code", "encoding", "reason", "start", "end",
              "object", "name", "path", "msg", "lineno", "offset", "text")  # fmt: skip
"""What built-in exceptions keep outside their dictionary."""

NEVER = (KeyboardInterrupt, GeneratorExit, StopIteration, StopAsyncIteration)
"""The first two are for Python itself to raise; the other two would end loops of the tests."""


class StoppedError(RuntimeError):
    """A candidate's function raised StopIteration.

    A StopIteration would end a `map`, `zip` or `all` of the tests as if all cases had been seen. So
    it is replaced by this class, and `except StopIteration` in tests also catches this class.
    """


KNOWN: dict[str, type[BaseException]] = {
    **{
        f"builtins.{name}": kind
        for name, kind in vars(builtins).items()
        if isinstance(kind, type) and issubclass(kind, BaseException) and kind not in NEVER
    },
    **{
        f"{kind.__module__}.{kind.__qualname__}": kind
        for kind in (
            json.JSONDecodeError, decimal.InvalidOperation, decimal.DivisionByZero,
            decimal.Overflow, decimal.DecimalException, statistics.StatisticsError, struct.error,
            re.error, zlib.error, binascii.Error, copy.Error, Empty, Full, FrozenInstanceError,
        )
    },
    "builtins.StopIteration": StoppedError,
    "builtins.StopAsyncIteration": StoppedError,
}  # fmt: skip


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as plain data: base classes, args, text, fields; parts that are not plain are
    left out."""
    try:
        said = str(error)[:LONGEST_SAID]
    except Exception:  # noqa: BLE001 - a class may have a `__str__` of its own
        said = ""
    fields = {**vars(error)}
    for name in OWN_FIELDS:
        if getattr(error, name, None) is not None:
            fields[name] = getattr(error, name)
    return {
        "line": [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__],
        "args": list(error.args),
        "said": said,
        "fields": fields,
    }


def rebuild(description: Any, awaited: Mapping[str, type[BaseException]]) -> BaseException | None:
    """Rebuild an exception; `None` for one that must not reach the tests.

    Args:
        description: what `describe` wrote, in whatever state it arrived.
        awaited: exception classes of the candidate that the tests name, by name.
    """
    line, args, said, fields = (description[key] for key in ("line", "args", "said", "fields"))
    base = next((KNOWN[name] for name in line if name in KNOWN), None)
    if base is None or base is BaseException or "builtins.KeyboardInterrupt" in line:
        return None
    built = _made(base, tuple(args), fields)
    wanted = [awaited[n] for n in (name.rpartition(".")[2] for name in line) if n in awaited]
    if wanted or str(built) != said:
        built = _derived(built, str(line[0]).rpartition(".")[2], wanted, said)
    for name, value in fields.items():
        if name.isidentifier() and not name.startswith("_") and name != "args":
            _set(built, name, value)
    return built


def _made(base: type[BaseException], args: tuple[Any, ...], fields: Any) -> BaseException:
    if issubclass(base, OSError) and len(args) == 2 and "filename" in fields:
        args = (*args, fields["filename"])
    try:
        return base(*args)
    except Exception:  # noqa: BLE001 - a derived class may keep other args than its base needs
        built = base.__new__(base)
        built.args = args
        return built


def _derived(
    built: BaseException, name: str, wanted: list[type[BaseException]], said: str
) -> BaseException:
    """A subclass of `base` and of the class that the tests catch, with the candidate's text."""
    bases = tuple(dict.fromkeys([*wanted, type(built)]))
    if any(issubclass(other, bases[0]) for other in bases[1:]):
        bases = bases[1:]
    kind = type(name or "Raised", bases, {"__str__": lambda self: said})
    derived: BaseException = kind.__new__(kind, *built.args)
    derived.args = built.args
    return derived


def _set(built: BaseException, name: str, value: Any) -> None:
    try:
        setattr(built, name, value)
    except (AttributeError, TypeError, ValueError):
        return  # the class has a say in what it may be
