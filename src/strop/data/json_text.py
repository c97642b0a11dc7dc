"""Parses JSON strictly: no duplicate keys, no half characters, limited nesting."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from strop.errors import DataError

DEEPEST = 100
"""Levels of lists and objects, because values are later printed, compared and rendered."""


Loc = tuple[str | int, ...]

_SIGNS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s"\[\]{},:]+')
"""Texts, brackets, commas and colons, and whatever else is one value."""


def parsed(text: str, where: str, *, fix: str = "mend or drop the line") -> Any:
    """The value of a JSON text.

    Raises `DataError` for invalid JSON, for a duplicate key in an object (the first value would be
    lost silently), for half of a surrogate pair (no tokenizer accepts it) and for more than
    `DEEPEST` levels.
    """
    try:
        value = json.loads(text, object_pairs_hook=_without_twins)
    except RecursionError:
        raise DataError(_too_deep(), where=where, fix=fix, kind="broken_json") from None
    except ValueError as error:  # json's own, or a number of more digits than Python reads
        raise DataError(f"broken JSON: {error}", where=where, fix=fix, kind="broken_json") from None
    if text.count("[") + text.count("{") > DEEPEST and _is_deep(value):
        raise DataError(_too_deep(), where=where, fix=fix, kind="broken_json")
    if "\\ud" in text or "\\uD" in text:
        _expect_whole(value, where)
    return value


def lines_of(text: str) -> Iterator[tuple[Loc, int]]:
    """Every key and item of a valid JSON text with its line, from 1: `(("players", "sft"), 3)`. A
    key that is given twice comes twice."""
    loc: list[str | int] = []  # of each open bracket, the key or the item that is being read
    line, counted = 1, 0
    key_next = item_next = False
    for found in _SIGNS.finditer(text):
        sign = found.group()
        line += text.count("\n", counted, found.start())
        counted = found.start()
        if (item_next and sign != "]") or (key_next and sign != "}"):
            loc[-1] = json.loads(sign) if key_next else loc[-1]
            yield tuple(loc), line
            if key_next:
                key_next = False
                continue
        key_next = item_next = False
        if sign in ("{", "["):
            loc.append("" if sign == "{" else 0)
            key_next, item_next = sign == "{", sign == "["
        elif sign in ("}", "]"):
            loc.pop()
        elif sign == ",":
            last = loc[-1]
            loc[-1] = last + 1 if isinstance(last, int) else last
            key_next, item_next = isinstance(last, str), isinstance(last, int)


def _without_twins(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice[:80]!r} appears twice")
    return found


def _too_deep() -> str:
    return f"broken JSON: nested deeper than {DEEPEST} levels"


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = [item for one in level for item in _parts(one)]
    return any(isinstance(one, list | dict) for one in level)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _expect_whole(value: Any, where: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DataError(
            "the text holds half of a surrogate pair (\\ud800 to \\udfff alone)",
            where=where,
            fix="write the character whole, or drop the line",
            kind="surrogate",
        ) from None
