"""Plain data between candidate and referee: JSON with tags, never pickle.

Only data crosses: numbers, text, bytes, None and their lists, tuples, sets and dictionaries. An
object whose `__eq__` says yes to everything cannot be sent, so it equals nothing.
Standard library only.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from typing import Any

LONGEST = 16 * 2**20
"""Bytes of a message; a longer one is refused."""

HEADER = struct.Struct(">I")


class NotPlainError(TypeError):
    """A value is no plain data."""


class TooMuchError(NotPlainError):
    """Plain data, but too long or too deep for a message."""


def to_bytes(value: object) -> bytes:
    """A message of plain data. Raises `NotPlainError` for anything else, `TooMuchError` for too
    much of it."""
    try:
        packed = json.dumps(_pack(value)).encode()
    except (RecursionError, ValueError) as error:
        raise TooMuchError(f"the value cannot be written: {error}") from None
    if len(packed) > LONGEST:
        raise TooMuchError(f"the value takes {len(packed)} bytes, over the limit of {LONGEST}")
    return packed


def from_bytes(packed: bytes) -> Any:
    """The value of a message, made of built-in types alone. Raises `NotPlainError`."""
    try:
        return _unpack(json.loads(packed))
    except (RecursionError, ValueError, TypeError, LookupError, OverflowError) as error:
        raise NotPlainError(f"not a message: {type(error).__name__}") from None


def send(link: int, value: object) -> None:
    """Write a message to a file descriptor (a candidate may not make socket calls)."""
    packed = to_bytes(value)
    rest = memoryview(HEADER.pack(len(packed)) + packed)
    while rest:
        rest = rest[os.write(link, rest) :]


def receive(link: int) -> Any:
    """The next message from a file descriptor. Raises `EOFError` at the end, `NotPlainError` for
    what is no message."""
    (length,) = HEADER.unpack(_exactly(link, HEADER.size))
    if length > LONGEST:
        raise NotPlainError(f"a message of {length} bytes, over the limit of {LONGEST}")
    return from_bytes(_exactly(link, length))


def _exactly(link: int, count: int) -> bytes:
    parts = []
    while count:
        part = os.read(link, min(count, 2**20))
        if not part:
            raise EOFError("the other side has ended")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _pack(value: object) -> Any:
    """Built-in values (and their subclasses, as what they are made of) as JSON."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return {"int": hex(value)} if abs(value) >= 2**53 else int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, list):
        return [_pack(item) for item in value]
    if isinstance(value, dict):
        return {"dict": [[_pack(k), _pack(v)] for k, v in value.items()]}
    for name, kind in COLLECTIONS.items():
        if isinstance(value, kind):
            return {name: [_pack(item) for item in value]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    raise NotPlainError(f"a {type(value).__name__} is no plain data")


COLLECTIONS: dict[str, type[tuple[Any, ...] | set[Any] | frozenset[Any]]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}


def _to_int(text: str) -> int:
    return int(text, 16)


def _to_dict(pairs: list[list[Any]]) -> dict[Any, Any]:
    return {_unpack(key): _unpack(value) for key, value in pairs}


def _to_complex(parts: list[float]) -> complex:
    real, imaginary = parts
    return complex(float(real), float(imaginary))


UNPACK: dict[str, Callable[[Any], Any]] = {
    "int": _to_int,
    "dict": _to_dict,
    "bytes": bytes.fromhex,
    "complex": _to_complex,
}


def _unpack(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError("one tag names a kind")
    name, content = next(iter(value.items()))
    if name in COLLECTIONS:
        return COLLECTIONS[name](_unpack(item) for item in content)
    return UNPACK[name](content)
