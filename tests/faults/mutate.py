"""Valid files -> odd ones, each drawn from a generator: a seed and a number name an input."""

from __future__ import annotations

import gzip
import json
from random import Random
from typing import Any

ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 3.5, -0.0, 1e308, float("inf"), float("nan"), 10**30, 10**400,
    "", " ", "\t\n", "\x00", "a\x00b", "\ud800", "x\udfffy", "\u202e\u200b", "😀", "ﬀ", "é" * 3,
    "a" * 3000, "../../etc/passwd", "/dev/zero", "~nosuchuser/x", "~", ".", "/", "a/" * 2000,
    "1e999", "nan", "true", "2024-13-45", "=", "{{", "{% for i in range(10) %}", "<|end|>",
    [], {}, [[]], [None], [1, [2, [3]]], {"": None}, {"path": None}, {"role": 3}, {"kind": "train"},
    [{"role": "user", "content": None}], [{"role": "assistant", "tool_calls": 7}],
]  # fmt: skip
"""What a value is replaced with; a JSON writer makes `1e999` and `NaN` of the endless ones."""

ODD_TOKENS = [
    "\t", "\x00", "\ufeff", "\u2028", "\x85", "- ", ": ", "? ", "!!python/object:os.system {}",
    "!!int x", "!!float y", "!!binary '*'", "!!timestamp 2024-99-99", "!!set {a}", "!!bool maybe",
    "&a", "*a", "&a [*a]", "<<: *a", "<<: {a: 1}", "2024-13-45", "1:99:99", "0x", "0b", ".inf",
    ".nan", "1e999", "9" * 5000, "{", "}", "[", "]", "'", '"', "|", ">", "%YAML 9.9", "---", "...",
    "\\ud800", "\\u0000", "NaN", "-Infinity", "null", "~", "#", "@", "`", '{"a": 1, "a": 2}',
    "[" * 60, "]" * 60, '{"a":' * 40,
]  # fmt: skip
"""Text put somewhere into a file."""

ODD_KEYS = ["", " ", "kind", "path", "method", "prompt", "\x00", "\ud800", "é", "a.b", "0", "<<"]


def odd(rng: Random, value: Any) -> Any:
    """A copy of plain values with one or a few places made odd."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = _at_random(rng, value)
    return value


def _at_random(rng: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        if rng.random() < 0.75:
            return {**value, key: _at_random(rng, value[key])}
        return _keys_moved(rng, value, key)
    if isinstance(value, list) and value and rng.random() < 0.85:
        place = rng.randrange(len(value))
        if rng.random() < 0.75:
            return [*value[:place], _at_random(rng, value[place]), *value[place + 1 :]]
        return rng.choice((value[:place], value + value, value[::-1], [*value, value], value[1:]))
    return _replaced(rng, value)


def _keys_moved(rng: Random, value: dict[str, Any], key: str) -> dict[str, Any]:
    without = {name: item for name, item in value.items() if name != key}
    name = rng.choice(ODD_KEYS) if rng.random() < 0.6 else key[:-1] + rng.choice("sx_")
    return rng.choice((without, {**without, name: value[key]}, {**value, name: value[key]}))


def _replaced(rng: Random, value: Any) -> Any:
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(ODD_VALUES)
    if kind < 0.7:
        return str(value)
    if kind < 0.8:
        return [value]
    if kind < 0.9:
        return {"value": value}
    return nested(value, rng.choice((5, 90, 150, 400)))


def nested(value: Any, depth: int) -> Any:
    """`nested(1, 2)` is `[[1]]`."""
    for _ in range(depth):
        value = [value]
    return value


def torn(rng: Random, data: bytes) -> bytes:
    """Bytes of a file cut, spliced, repeated, or written in another encoding."""
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        data = rng.choice(TEARS)(rng, data)
    return data


def _token(rng: Random, data: bytes) -> bytes:
    place = rng.randrange(len(data) + 1)
    token = rng.choice(ODD_TOKENS).encode("utf-8", "surrogatepass")
    return data[:place] + token + data[place + rng.choice((0, 0, 1, 5)) :]


def _scalar(rng: Random, data: bytes) -> bytes:
    """The rest of a line after its colon becomes an odd token."""
    lines = data.split(b"\n")
    number = rng.randrange(len(lines))
    head, colon, _ = lines[number].partition(b":")
    lines[number] = head + colon + b" " + rng.choice(ODD_TOKENS).encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def _lines(rng: Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    one, two = rng.randrange(len(lines)), rng.randrange(len(lines))
    indent = rng.choice((b" ", b"\t", b"    ", b"- "))
    return b"\n".join(
        rng.choice((
            lines[:one] + lines[one + 1 :],
            [*lines[:one], lines[two], *lines[one:]],
            [*lines[:one], indent + lines[one], *lines[one + 1 :]],
            [*lines[:one], lines[one].strip(), *lines[one + 1 :]],
        ))
    )  # fmt: skip


def _bytes(rng: Random, data: bytes) -> bytes:
    place = rng.randrange(len(data) + 1)
    new = bytes(rng.randrange(256) for _ in range(rng.choice((1, 2, 16))))
    return data[:place] + new + data[place + rng.choice((0, 1, len(new))) :]


def _cut(rng: Random, data: bytes) -> bytes:
    one, two = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return rng.choice((data[:one], data[one:], data[:one] + data[two:], data[:two] + data[one:]))


def _encoded(rng: Random, data: bytes) -> bytes:
    text = data.decode("utf-8", "replace")
    encoding = rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "utf-7"))
    return text.encode(encoding, "replace")


TEARS = (_token, _token, _token, _scalar, _scalar, _lines, _lines, _bytes, _cut, _encoded)


def as_json(value: Any) -> bytes:
    """JSON, as YAML reads it too; endless numbers as a careless writer writes them."""
    return json.dumps(value).replace("Infinity", "1e999").encode()


def as_jsonl(rows: Any) -> bytes:
    listed = rows if isinstance(rows, list) else [rows]
    return b"\n".join(as_json(row) for row in listed) + b"\n"


def noise(rng: Random) -> bytes:
    """Bytes of no form at all."""
    alphabet = rng.choice((bytes(range(256)), b'{}[]":, \nabc01\\-', b" \t\n:-#&*!|>'\"{}[],"))
    return bytes(rng.choice(alphabet) for _ in range(rng.choice((0, 1, 3, 40, 400))))


def zipped(rng: Random, data: bytes) -> bytes:
    """gzip, sometimes damaged."""
    packed = gzip.compress(data, 1, mtime=0)
    return torn(rng, packed) if rng.random() < 0.3 else packed
