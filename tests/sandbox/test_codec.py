"""What a candidate may answer with: plain data in one piece, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from array import array
from collections import ChainMap, Counter, OrderedDict, deque, namedtuple
from datetime import UTC, date, datetime, timedelta
from datetime import time as dtime
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from types import MappingProxyType, SimpleNamespace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strop.sandbox.values import codec

Point = namedtuple("Point", "x y")


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary() | st.complex_numbers(allow_nan=False)
)  # fmt: skip


hashable = scalars | st.tuples(scalars, scalars) | st.frozensets(scalars)


values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner) | st.tuples(inner) | st.sets(hashable) | st.dictionaries(hashable, inner)
    ),
    max_leaves=12,
)


def kinds(value: Any) -> Any:
    """The types inside a value: 1 == 1.0 == True, but they are not the same."""
    if isinstance(value, list | tuple):
        return type(value), [kinds(item) for item in value]
    if isinstance(value, set | frozenset):
        return type(value), sorted(repr(kinds(item)) for item in value)
    if isinstance(value, dict):
        return dict, sorted(repr((kinds(k), kinds(v))) for k, v in value.items())
    return type(value)


@settings(max_examples=150, deadline=None)
@given(values)
def test_plain_data_survives_a_message(value: Any) -> None:
    back = codec.from_bytes(codec.to_bytes(value))
    assert back == value
    assert kinds(back) == kinds(value)


@settings(max_examples=150, deadline=None)
@given(st.binary() | st.text().map(str.encode) | values.map(codec.to_bytes).map(lambda b: b[1:]))
def test_rubbish_is_no_message_and_nothing_worse(packed: bytes) -> None:
    with contextlib.suppress(codec.NotPlainError):
        kinds(codec.from_bytes(packed))


@pytest.mark.parametrize(
    "packed",
    [b"", b"{}", b'{"a": 1, "b": 2}', b'{"call": "x"}', b'{"int": 5}', b'{"int": "x"}',
     b'{"set": [[1]]}', b'{"set": 1}', b'{"dict": [1]}', b'{"dict": [[[1], 2]]}', b'{"bytes": "x"}',
     b'{"complex": [1]}', b'{"complex": [1' + b"0" * 400 + b', 0]}', b"1" * 5000, b"[" * 10**5,
     b'{"tuple": ' * 10**5, b"\xff\xfe"],
)  # fmt: skip
def test_what_is_no_message_is_refused(packed: bytes) -> None:
    with pytest.raises(codec.NotPlainError):
        codec.from_bytes(packed)


class Sly(list):  # type: ignore[type-arg]
    def __reduce__(self) -> Any:
        raise AssertionError("pickled")

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None


@pytest.mark.parametrize(
    "value", [object(), print, (n for n in [1]), iter([1]), type(codec), {1: {2: object()}}]
)
def test_what_is_not_plain_is_not_sent(value: object) -> None:
    with pytest.raises(codec.NotPlainError) as caught:
        codec.to_bytes(value)
    assert not isinstance(caught.value, codec.TooMuchError)


def test_too_much_is_not_sent() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value in ("x" * (codec.LONGEST + 1), endless):
        with pytest.raises(codec.TooMuchError):
            codec.to_bytes(value)


LIBRARY = [
    range(1, 9, 2), slice(1, None), Decimal("1.50"), Fraction(2, 6), date(2024, 2, 29),
    datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC), dtime(3, 4), timedelta(-1, 5), UTC,
    deque([1, [2]], 3), OrderedDict([(2, 1), (1, 2)]), Counter("aab"), bytearray(b"x"),
    {1: 2}.keys(), {1: [2]}.items(), MappingProxyType({1: 2}), SimpleNamespace(a=1), array("i",
    [1]),
    UUID(int=5), PurePosixPath("a/b"), ChainMap({1: 2}), ..., int, Decimal, Point(1, [2]),
]  # fmt: skip


@pytest.mark.parametrize("value", LIBRARY, ids=lambda v: type(v).__name__)
def test_values_of_the_library_arrive_as_copies(value: Any) -> None:
    back = codec.from_bytes(codec.to_bytes([value]))[0]
    assert back == value
    assert str(type(back)) == str(type(value)).replace(
        f"{__name__}.", "strop.sandbox.values.library."
    )
    if isinstance(value, deque):
        assert back.maxlen == 3


def test_arrays_arrive_as_copies() -> None:
    for value in (np.arange(6.0).reshape(2, 3).T, np.array([True]), np.array(["x", "yz"]),
                  np.array([], dtype=np.int8), np.array("2024-01-02", dtype="M8[D]")):  # fmt: skip
        back = codec.from_bytes(codec.to_bytes(value))
        assert back.dtype == value.dtype
        assert np.array_equal(back, value)
    assert type(codec.from_bytes(codec.to_bytes(np.float32(0.5)))) is np.float32
    with pytest.raises(codec.NotPlainError):
        codec.to_bytes(np.array([object()]))
    forged = json.dumps({"array": ["|O8", [1], {"bytes": "00" * 8}]}).encode()
    with pytest.raises(codec.NotPlainError):
        codec.from_bytes(forged)


def test_a_subclass_arrives_as_what_it_is_made_of() -> None:
    back = codec.from_bytes(codec.to_bytes(Sly([1])))
    assert type(back) is list
    assert back != [2]


def test_a_message_comes_in_one_piece_or_as_an_error() -> None:
    reading, writing = os.pipe()
    codec.send(writing, {"a": (1, 2)})
    assert codec.receive(reading) == {"a": (1, 2)}
    os.write(writing, struct.pack(">I", codec.LONGEST + 1))
    with pytest.raises(codec.NotPlainError, match="over the limit"):
        codec.receive(reading)
    os.write(writing, struct.pack(">I", 10) + b"half")
    os.close(writing)
    with pytest.raises(EOFError):
        codec.receive(reading)
    os.close(reading)
