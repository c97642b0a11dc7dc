"""Library types that cross as copies: each value is taken apart into plain data and rebuilt.

The copy is of the library's own class, so its equality and its hash are the library's and not the
candidate's. Standard library only; numpy where the other side already sent an array.
"""

from __future__ import annotations

import array
import builtins
import collections
import datetime
import decimal
import fractions
import importlib
import pathlib
import re
import types
import uuid
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """How values of a type are taken apart into plain data, and built from it."""

    apart: Callable[[Any], Any]
    build: Callable[[Any], Any]


def _pairs(value: Any) -> list[Any]:
    return [list(pair) for pair in value.items()]


def _built_dict(pairs: Any) -> dict[Any, Any]:
    return dict(pairs)


KINDS: dict[str, Kind] = {
    "decimal.Decimal": Kind(str, lambda text: decimal.Decimal(text)),
    "fractions.Fraction": Kind(
        lambda v: [v.numerator, v.denominator], lambda two: fractions.Fraction(*two)
    ),
    "datetime.date": Kind(lambda v: v.isoformat(), datetime.date.fromisoformat),
    "datetime.datetime": Kind(lambda v: v.isoformat(), datetime.datetime.fromisoformat),
    "datetime.time": Kind(lambda v: v.isoformat(), datetime.time.fromisoformat),
    "datetime.timedelta": Kind(
        lambda v: [v.days, v.seconds, v.microseconds], lambda three: datetime.timedelta(*three)
    ),
    "datetime.timezone": Kind(
        lambda v: v.utcoffset(None).total_seconds(),
        lambda seconds: datetime.timezone(datetime.timedelta(seconds=seconds)),
    ),
    "collections.deque": Kind(
        lambda v: [list(v), v.maxlen], lambda two: collections.deque(two[0], two[1])
    ),
    "collections.OrderedDict": Kind(_pairs, lambda pairs: collections.OrderedDict(pairs)),
    "collections.Counter": Kind(_pairs, lambda pairs: collections.Counter(_built_dict(pairs))),
    "collections.defaultdict": Kind(
        lambda v: [v.default_factory, _pairs(v)],
        lambda two: collections.defaultdict(two[0], _built_dict(two[1])),
    ),
    "collections.ChainMap": Kind(
        lambda v: [dict(one) for one in v.maps], lambda maps: collections.ChainMap(*maps)
    ),
    "builtins.range": Kind(lambda v: [v.start, v.stop, v.step], lambda three: range(*three)),
    "builtins.slice": Kind(lambda v: [v.start, v.stop, v.step], lambda three: slice(*three)),
    "builtins.bytearray": Kind(bytes, bytearray),
    "builtins.memoryview": Kind(bytes, memoryview),
    "builtins.ellipsis": Kind(lambda v: 0, lambda nothing: ...),
    "builtins.NotImplementedType": Kind(lambda v: 0, lambda nothing: NotImplemented),
    "builtins.dict_keys": Kind(list, lambda keys: dict.fromkeys(keys).keys()),
    "builtins.dict_values": Kind(list, lambda values: dict(enumerate(values)).values()),
    "builtins.dict_items": Kind(
        lambda v: [list(pair) for pair in v], lambda pairs: _built_dict(pairs).items()
    ),
    "builtins.mappingproxy": Kind(dict, lambda inner: types.MappingProxyType(inner)),
    "types.SimpleNamespace": Kind(
        lambda v: dict(vars(v)), lambda fields: types.SimpleNamespace(**fields)
    ),
    "array.array": Kind(lambda v: [v.typecode, list(v)], lambda two: array.array(*two)),
    "uuid.UUID": Kind(str, uuid.UUID),
    "pathlib.PosixPath": Kind(str, pathlib.PosixPath),
    "pathlib.PurePosixPath": Kind(str, pathlib.PurePosixPath),
}
"""By module and name of the type."""

ALIKE = {
    "collections.odict_keys": "builtins.dict_keys",
    "collections.odict_values": "builtins.dict_values",
    "collections.odict_items": "builtins.dict_items",
}

TYPES: dict[str, type] = {
    **{kind.__name__: kind for kind in vars(builtins).values() if isinstance(kind, type)},
    "NoneType": type(None),
    **{
        f"{kind.__module__}.{kind.__name__}": kind
        for kind in (
            decimal.Decimal, fractions.Fraction, datetime.date, datetime.datetime, datetime.time,
            datetime.timedelta, collections.deque, collections.OrderedDict, collections.Counter,
            collections.defaultdict,
        )
    },
}  # fmt: skip
"""Types that may be an answer or an argument themselves."""

NAMES = {kind: name for name, kind in TYPES.items()}


def name_of(kind: type) -> str:
    name = f"{kind.__module__}.{kind.__qualname__}"
    return ALIKE.get(name, name)


@cache
def named_tuple(name: str, fields: tuple[str, ...]) -> Any:
    """The class of a named tuple. Raises `ValueError` for what is no name."""
    return collections.namedtuple(name, fields)


# --- numpy ----------------------------------------------------------------------------------------

ARRAY_TYPE = re.compile(r"[<>|=]?(?:[biufc]\d{1,2}|[SU]\d{1,9}|[mM]8(?:\[\w{1,12}\])?)")
"""Numbers, truth values, texts and dates: nothing that holds Python objects."""


def array_apart(value: Any) -> list[Any] | None:
    """An array or scalar of numpy as type, shape (`None` for a scalar) and bytes; else `None`."""
    if type(value).__module__ != "numpy" or not ARRAY_TYPE.fullmatch(
        getattr(getattr(value, "dtype", None), "str", "")
    ):
        return None
    shape = list(value.shape) if type(value).__name__ == "ndarray" else None
    return [value.dtype.str, shape, value.tobytes()]


def array_built(parts: Any) -> Any:
    kind, shape, held = parts
    if not ARRAY_TYPE.fullmatch(kind):
        raise ValueError("an array of something that is no number")
    numpy: Any = importlib.import_module("numpy")
    flat = numpy.frombuffer(held, dtype=numpy.dtype(kind))
    return flat[0] if shape is None else flat.reshape(shape).copy()
