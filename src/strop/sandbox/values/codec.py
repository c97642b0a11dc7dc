"""Messages between candidate and referee: JSON with tags, never pickle.

What crosses is data: numbers, text, bytes, None, their collections, and copies of library values
(`values/library.py`). Any other object stays in its process, and the other side gets a number for
it (`Codec.pack_other`). So an object whose `__eq__` is always true never arrives. Standard library
only.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from typing import Any

from strop.sandbox.values.library import (
    KINDS,
    NAMES,
    TYPES,
    array_apart,
    array_built,
    name_of,
    named_tuple,
)

LONGEST = 16 * 2**20
"""Bytes of a message; a longer one is refused."""

HEADER = struct.Struct(">I")

BROKEN = (RecursionError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError,
          MemoryError)  # fmt: skip
"""Exceptions that a forged message may cause when its value is built."""


class NotPlainError(TypeError):
    """A value is no plain data."""


class ForeignError(NotPlainError):
    """An object of one program was sent to another program."""


class TooMuchError(NotPlainError):
    """Plain data, but too long or too deep for a message."""


COLLECTIONS: dict[str, Callable[[Any], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}

BASES: tuple[type, ...] = (
    bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset,
)  # fmt: skip
"""Base classes whose subclasses' objects have a value as plain data."""


class Codec:
    """Packs and unpacks values. Each side adds its handling of objects that do not cross."""

    def pack(self, value: Any) -> Any:
        """A value as JSON."""
        kind = type(value)
        if value is None or kind in (bool, str, float):
            return value
        if kind is int:
            return {"int": hex(value)} if abs(value) >= 2**53 else value
        if kind is list:
            return [self.pack(item) for item in value]
        if kind is dict:
            return {"dict": [[self.pack(k), self.pack(v)] for k, v in value.items()]}
        if kind in (tuple, set, frozenset):
            return {kind.__name__: [self.pack(item) for item in value]}
        if kind is bytes:
            return {"bytes": value.hex()}
        if kind is complex:
            return {"complex": [value.real, value.imag]}
        return self._pack_library(value)

    def _pack_library(self, value: Any) -> Any:
        name = name_of(type(value))
        if name in KINDS:
            return {name: self.pack(KINDS[name].apart(value))}
        if isinstance(value, type) and value in NAMES:
            return {"type": NAMES[value]}
        if is_named_tuple(value):
            return self._pack_named(value)
        parts = array_apart(value)
        return {"array": self.pack(parts)} if parts else self.pack_other(value)

    def _pack_named(self, value: Any) -> Any:
        fields = list(type(value)._fields)
        return {"named": [type(value).__name__, fields, self.pack(list(tuple.__iter__(value)))]}

    def pack_other(self, value: Any) -> Any:
        """Pack an object that is not plain data as its built-in base; raises `NotPlainError`
        without one."""
        return self.pack_base(value)

    def pack_base(self, value: Any) -> Any:
        """Pack an object of a subclass of a built-in class as the built-in class."""
        if isinstance(value, tuple) and isinstance(getattr(value, "_fields", None), tuple):
            return self._pack_named(value)
        for base in BASES:
            if isinstance(value, base):
                return self.pack(_as_base(base, value))
        for kind in type(value).__mro__[1:]:
            if name_of(kind) in KINDS:
                return {name_of(kind): self.pack(KINDS[name_of(kind)].apart(value))}
        raise NotPlainError(f"a {type(value).__name__} is no plain data")

    def unpack(self, value: Any) -> Any:
        """The value of JSON that `pack` wrote on the other side."""
        if isinstance(value, list):
            return [self.unpack(item) for item in value]
        if not isinstance(value, dict):
            return value
        if len(value) != 1:
            raise ValueError("one tag names a kind")
        ((tag, content),) = value.items()
        if tag in COLLECTIONS:
            return COLLECTIONS[tag](self.unpack(item) for item in content)
        if tag in KINDS:
            return KINDS[tag].build(self.unpack(content))
        if tag in UNPACK:
            return UNPACK[tag](content)
        return self._unpack_made(tag, content)

    def _unpack_made(self, tag: str, content: Any) -> Any:
        match tag:
            case "dict":
                return {self.unpack(key): self.unpack(value) for key, value in content}
            case "named":
                name, fields, items = content
                return self.named(name, tuple(fields))(*self.unpack(items))
            case "array":
                return array_built(self.unpack(content))
        return self.unpack_other(tag, content)

    def named(self, name: str, fields: tuple[str, ...]) -> Any:
        """The class for a named tuple that arrives."""
        return named_tuple(name, fields)

    def unpack_other(self, tag: str, content: Any) -> Any:
        """Values that only one of the two sides may send."""
        raise LookupError(tag)


def is_named_tuple(value: Any) -> bool:
    """Whether it is one as `namedtuple` makes them, without methods of its own."""
    kind = type(value)
    fields = getattr(kind, "_fields", None)
    return (
        isinstance(value, tuple)
        and kind.__bases__ == (tuple,)
        and isinstance(fields, tuple)
        and not any(
            callable(held) for name, held in vars(kind).items()
            if not name.startswith("_") and name not in fields
        )
    )  # fmt: skip


def _as_base(base: type, value: Any) -> Any:
    """Convert with the base's own methods, not with the class's."""
    if base in (list, tuple, set, frozenset):
        return base(base.__iter__(value))
    if base is dict:
        return dict(dict.items(value))
    if base is str:
        return str.__str__(value)
    if base is int:
        return int.__int__(value)
    if base is float:
        return float.__float__(value)
    if base is complex:
        return complex(complex.__add__(value, 0))
    return base(bytes(memoryview(value)))


def _to_int(text: str) -> int:
    return int(text, 16)


def _to_complex(parts: list[float]) -> complex:
    real, imaginary = parts
    return complex(float(real), float(imaginary))


UNPACK: dict[str, Callable[[Any], Any]] = {
    "int": _to_int,
    "bytes": bytes.fromhex,
    "complex": _to_complex,
    "type": TYPES.__getitem__,
}

PLAIN = Codec()
"""Of a side that has no objects."""


def to_bytes(value: object, codec: Codec = PLAIN) -> bytes:
    """A message of plain data. Raises `NotPlainError` for anything else, `TooMuchError` if it is
    too long or too deep."""
    try:
        packed = json.dumps(codec.pack(value)).encode()
    except (RecursionError, ValueError) as error:
        raise TooMuchError(f"the value cannot be written: {error}") from None
    if len(packed) > LONGEST:
        raise TooMuchError(f"the value takes {len(packed)} bytes, over the limit of {LONGEST}")
    return packed


def from_bytes(packed: bytes, codec: Codec = PLAIN) -> Any:
    """The value of a message, made of trusted types alone. Raises `NotPlainError`."""
    try:
        return codec.unpack(json.loads(packed))
    except BROKEN as error:
        raise NotPlainError(f"not a message: {type(error).__name__}") from None


def send(link: int, value: object, codec: Codec = PLAIN) -> None:
    """Write a message to a file descriptor (a candidate may not make socket calls)."""
    packed = to_bytes(value, codec)
    rest = memoryview(HEADER.pack(len(packed)) + packed)
    while rest:
        rest = rest[os.write(link, rest) :]


def receive(link: int, codec: Codec = PLAIN) -> Any:
    """The next message from a file descriptor. Raises `EOFError` at the end, `NotPlainError` for
    what is no message."""
    (length,) = HEADER.unpack(_exactly(link, HEADER.size))
    if length > LONGEST:
        raise NotPlainError(f"a message of {length} bytes, over the limit of {LONGEST}")
    return from_bytes(_exactly(link, length), codec)


def _exactly(link: int, count: int) -> bytes:
    parts = []
    while count:
        part = os.read(link, min(count, 2**20))
        if not part:
            raise EOFError("the other side has ended")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
