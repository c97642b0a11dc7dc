"""Mines a golden set from production records: cases that went wrong become items of an eval."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.data.duplicates import first_alike, words
from strop.data.sources import rows
from strop.errors import DataError
from strop.evals.golden.signals import Item, as_answer, prompt_words, signal_of
from strop.files import sha256_hex
from strop.text.parse import plain

NONE = "none"
"""The value of a stratum's column in rows without that column."""


@dataclass(frozen=True, slots=True)
class Mined:
    """Rows of a golden set and how they came about.

    `Mined(tasks=[{"id": ..., "prompt": ...}], pairs=[...], signals={"failed": 40, ...},
    dropped={"equal": 9, "near": 2, "over_quota": 0}, strata={"signal=failed": {"found": 31, "kept":
    31}}, conflicts=0)`; `conflicts` counts duplicates whose gold answer differed from that of the
    kept row.
    """

    tasks: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    signals: dict[str, int]
    dropped: dict[str, int]
    strata: dict[str, dict[str, int]]
    conflicts: int


def mine(
    paths: Sequence[Path],
    *,
    by: Sequence[str] = (),
    per_stratum: int | None = None,
    below: float = 0.5,
    seed: int = 0,
) -> Mined:
    """Deduplicated, stratified items of these files.

    Edits become preference pairs; failed tasks and thumbs down become tasks. A thumb down that no
    reward can judge becomes a pair with the edit of another row with the same prompt, if there is
    one. Of duplicates the first that a reward can judge is kept, else the first. From every
    combination of signal and the columns `by`, the `per_stratum` items with the lowest hash under
    the seed are drawn, so that the order of the files does not matter. Raises `DataError` for a
    broken row, for a column that no item has, and if no record has a problem.
    """
    signals, items = _items(paths, below)
    _expect_columns(items, by)
    items = sorted(_against_edits(items), key=lambda item: item.judge is None)
    kept, groups, dropped, conflicts = _deduplicated(items)
    made = [_row(items[place], items[groups[place]], by) for place in kept]
    drawn, strata = _drawn(made, ("signal", *by), per_stratum, seed)
    counts = {**dropped, "over_quota": len(made) - len(drawn)}
    tasks = [row for row in drawn if "chosen" not in row]
    pairs = [row for row in drawn if "chosen" in row]
    return Mined(tasks, pairs, signals, counts, strata, conflicts)


def _items(paths: Sequence[Path], below: float) -> tuple[dict[str, int], list[Item]]:
    signals: Counter[str] = Counter()
    items: list[Item] = []
    for path in paths:
        for row, origin in rows(path):
            signal, item = signal_of(row, origin, below)
            signals[signal] += 1
            items += [item] if item else []
    if not items:
        found = ", ".join(f"{count} {name}" for name, count in sorted(signals.items()))
        raise DataError(
            f"no record says that something went wrong: found {found or 'no records'}",
            where=", ".join(map(str, paths)),
            fix=f"give records with `edited`, `label` false, or a `score` below {below:g}",
        )
    return dict(sorted(signals.items())), items


def _expect_columns(items: Sequence[Item], by: Sequence[str]) -> None:
    known = sorted({name for item in items for name in item.columns} - {"id"})
    for name in by:
        if name not in known:
            raise DataError(
                f"no item has the column {name!r}", where="--by",
                fix=f"use one of {', '.join(known) or 'none: the records have no columns'}",
            )  # fmt: skip


def _against_edits(items: Sequence[Item]) -> list[Item]:
    """Turn thumbs down that no reward can judge into pairs with an edit of the same prompt, if
    any."""
    edits = {prompt_words(item): item for item in reversed(items) if item.signal == "edit"}
    return [
        _set_against(item, edits.get(prompt_words(item)))
        if item.signal == "thumbs_down" and item.judge is None
        else item
        for item in items
    ]


def _set_against(item: Item, edit: Item | None) -> Item:
    if edit is None or edit.better is None:
        return item
    bad = as_answer(item.bad, isinstance(edit.better, list))
    if plain(bad).split() in ([], plain(edit.better).split()):
        return item
    return Item(item.signal, edit.prompt, bad, edit.better, item.columns, item.origin)


def _deduplicated(items: Sequence[Item]) -> tuple[list[int], list[int], dict[str, int], int]:
    """(indices that are kept, group of prompts of every index, dropped, conflicts)."""
    prompts = [prompt_words(item) for item in items]
    bad = [words(plain(item.bad)) for item in items]
    better = [words(plain(item.better)) if item.better else () for item in items]
    groups = first_alike(prompts)
    bads, betters = first_alike(bad), first_alike(better)
    first: dict[tuple[int, ...], int] = {}
    kept, dropped, conflicts = [], {"equal": 0, "near": 0}, 0
    for place, item in enumerate(items):
        pair = item.better is not None
        key = (groups[place], bads[place], betters[place]) if pair else (groups[place],)
        other = first.setdefault(key, place)
        if other == place:
            kept.append(place)
            continue
        equal = prompts[place] == prompts[other] and (not pair or bad[place] == bad[other])
        dropped["equal" if equal else "near"] += 1
        conflicts += not pair and item.judge is not None and _gold(item) != _gold(items[other])
    return kept, groups, dropped, conflicts


def _gold(item: Item) -> list[Any]:
    return [item.columns.get(name) for name in ("tests", "schema", "answer")]


def _row(item: Item, first: Item, by: Sequence[str]) -> dict[str, Any]:
    """An item as it is written; `first` is the first item with this prompt."""
    own = dict(item.columns)
    kept = {("source_id" if name == "id" else name): value for name, value in own.items()}
    kept |= {name: own.get(name, NONE) for name in by}
    sides = {"bad": item.bad} if item.better is None else {"chosen": item.better,
                                                           "rejected": item.bad}  # fmt: skip
    judge = {} if item.better is not None else {"judge": item.judge}
    return {
        "id": _hash([item.prompt, item.bad, item.better, own]),
        "prompt": item.prompt,
        **kept,
        **sides,
        **judge,
        "signal": item.signal,
        "cluster": str(own.get("cluster", _hash(prompt_words(first)))),
        "mined_from": f"{Path(item.origin.path).name}:{item.origin.line}",
    }


def _drawn(
    made: Sequence[dict[str, Any]], columns: Sequence[str], most: int | None, seed: int
) -> tuple[list[dict[str, Any]], dict[str, dict[str, int]]]:
    """At most `per_stratum` rows of every stratum, in their original order."""
    strata: dict[str, list[int]] = {}
    for place, row in enumerate(made):
        name = ", ".join(f"{column}={row[column]}" for column in columns)
        strata.setdefault(name, []).append(place)
    chosen: set[int] = set()
    counts = {}
    for name, places in sorted(strata.items()):
        drawn = sorted(places, key=lambda place: _hash([seed, made[place]["id"]]))[:most]
        chosen.update(drawn)
        counts[name] = {"found": len(places), "kept": len(drawn)}
    return [row for place, row in enumerate(made) if place in chosen], counts


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return sha256_hex(text, 12)
