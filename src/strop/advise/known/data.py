"""What data says: kinds, how much, how noisy, what tells the better answer without reading it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from strop.curate.check.run import Asked, Report, check
from strop.data.bad_rows import MAX_BAD
from strop.data.records import COLUMNS, any_record, kind_of_row, row_of
from strop.data.sources import at, first_row, read
from strop.errors import DataError
from strop.rewards.exact import golds_of, judged
from strop.stats.agreement import label_noise
from strop.text.parse import plain
from strop.types import Preference, Record, RecordKind, Task

FAMILIES = ("rows", "prompts", "labels", "length", "likeness", "conflicts", "annotators")
"""Families of `strop data check` that facts are read from."""
LONGEST_GOLD = 100
"""Characters of an answer that can be compared with; a longer one is a text, of which there are
many right ones."""
COUNTED: Mapping[RecordKind, str] = {
    "preference": "pairs", "feedback": "thumbs", "demonstration": "demonstrations",
    "document": "documents", "task": "tasks",
}  # fmt: skip
"""The fact that counts the records of a kind."""
_ANNOTATOR = re.compile(r"(annotator|rater|labell?er|human)[ _-]?(\d+|[a-z])", re.IGNORECASE)


@dataclass(slots=True)
class Golds:
    """Counts what records can be checked by: `tasks` by the reward that would check them, and of
    pairs with a gold how many prefer the right answer (`right`) or the wrong one (`wrong`)."""

    tasks: Counter[str] = field(default_factory=Counter)
    right: int = 0
    wrong: int = 0

    def watch(self, record: Record) -> None:
        if isinstance(record, Task):
            self.tasks[reward_of(record.columns) or ""] += 1
        elif isinstance(record, Preference) and record.columns.get("answer") is not None:
            gold = golds_of([record.columns["answer"]], "answer")[0]
            chosen = judged(plain(record.chosen), gold)
            rejected = judged(plain(record.rejected), gold)
            self.right += (chosen, rejected) == (1.0, 0.0)
            self.wrong += (chosen, rejected) == (0.0, 1.0)


def reward_of(columns: Mapping[str, Any]) -> str | None:
    """The built-in reward that can check a task with these columns."""
    if columns.get("tests") is not None:
        return "code_tests"
    if columns.get("schema") is not None:
        return "json_schema"
    answer = columns.get("answer")
    if answer is None:
        return None
    if columns.get("tools") is not None or isinstance(answer, list):
        return "tool_call"
    gold = golds_of([answer], "answer")[0]
    return "exact_answer" if gold is not None and len(gold) <= LONGEST_GOLD else None


@dataclass(frozen=True, slots=True)
class KnownData:
    """`KnownData({"pairs": 1200, ...}, {"preference": ("pairs.jsonl",)}, "", {...})`: facts by
    name, files by kind, the commonest reward of the tasks, what was measured by kind."""

    facts: Mapping[str, Any]
    files: Mapping[RecordKind, Sequence[str]]
    reward: str
    reports: Mapping[RecordKind, Report]


def read_data(paths: Sequence[Path], watch: Callable[[Record], None] | None = None) -> KnownData:
    """Read all files once. Raises `DataError` for a file without a usable row."""
    files: dict[RecordKind, list[str]] = {}
    for path in paths:
        files.setdefault(_kind(path), []).append(str(path))
    facts: dict[str, Any] = {"data": bool(paths)}
    if paths:
        facts |= dict.fromkeys(COUNTED.values(), 0)
    golds, reports = Golds(), {}
    for kind, named in files.items():
        watchers = [golds.watch, *([] if watch is None else [watch])]
        asked = Asked(
            [at(path) for path in named],
            annotators=_annotators(named),
            watch=partial(_all, watchers),
        )
        reports[kind] = check(asked, FAMILIES)
        figures = reports[kind].sections["prompts"].figures
        _expect_one_kind(kind, figures["kinds"], named)
        facts[COUNTED[kind]] += figures["kinds"][kind]
    checkable = golds.tasks.total() - golds.tasks[""]
    if golds.tasks:
        facts["verifiable"] = checkable / golds.tasks.total()
    for kind, report in reports.items():
        if kind in _OF_KIND:
            facts |= _OF_KIND[kind](report, golds)
    prompts = {
        kind: report.sections["prompts"].figures["unique_prompts"]
        for kind, report in reports.items()
    }
    facts["prompts_by_kind"] = prompts
    named_rewards = [name for name, _ in golds.tasks.most_common() if name]
    return KnownData(facts, files, named_rewards[0] if named_rewards else "", reports)


def left_out(reports: Mapping[RecordKind, Report]) -> Iterator[str]:
    """What is to be said of rows that cannot be used: `"2 of 101 rows cannot be used (...)"`."""
    for kind, report in reports.items():
        yield from (one.said for one in report.sections["rows"].findings)
        for other, count in report.sections["prompts"].figures["kinds"].items():
            if other != kind:
                yield f"{count} of the rows beside the {COUNTED[kind]} are {COUNTED[other]}"


def _expect_one_kind(
    kind: RecordKind, kinds: Mapping[RecordKind, int], paths: Sequence[str]
) -> None:
    """Raise `DataError` for files without a usable row, or with many rows of another kind."""
    if not kinds.get(kind):
        raise DataError("no row can be used", where=", ".join(paths),
                        fix="strop data check says why, row by row")  # fmt: skip
    if sum(kinds.values()) - kinds[kind] > MAX_BAD * sum(kinds.values()):
        held = " and ".join(f"{count} {COUNTED[kind]}" for kind, count in kinds.items())
        raise DataError(f"the rows are of several kinds: {held}", where=", ".join(paths),
                        fix="put each kind into a file of its own: --data for each")  # fmt: skip


def checkable_rows(paths: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of tasks that a built-in reward can check."""
    for record in read([at(path) for path in paths], any_record):
        if isinstance(record, Task) and reward_of(record.columns) is not None:
            yield row_of(record)


def _all(watchers: Sequence[Callable[[Record], None]], record: Record) -> None:
    for watch in watchers:
        watch(record)


def _kind(path: Path) -> RecordKind:
    row = first_row(at(path))
    kind = None if row is None else kind_of_row(row)
    if kind is None:
        held = "no row" if row is None else f"rows of no known kind ({', '.join(row)})"
        raise DataError(f"the file holds {held}", where=str(path),
                        fix="see what rows look like in docs/data.md; strop data build converts "
                        "exports, strop data map any row")  # fmt: skip
    _expect_no_null(row or {}, path)
    return kind


def _expect_no_null(row: Mapping[str, Any], path: Path) -> None:
    """Raise `DataError` for a row with all columns of a kind and nothing in one of them."""
    for forms in COLUMNS.values():
        for form in forms:
            null = [name for name in form if name in row and row[name] is None]
            if null and all(name in row for name in form):
                raise DataError(f"`{null[0]}` is null in the first row", where=str(path),
                                fix="write what is missing, or drop such rows")  # fmt: skip


def _annotators(paths: Sequence[str]) -> list[str]:
    """Columns that look like labels of several annotators."""
    row = first_row(at(paths[0])) or {}
    found = [name for name in row if _ANNOTATOR.fullmatch(name)]
    return found if len(found) > 1 else []


def _of_pairs(report: Report, golds: Golds) -> dict[str, Any]:
    length = report.sections["length"].figures.get("preference")
    likeness = report.sections["likeness"].figures
    conflicts = report.sections["conflicts"].figures
    unique = report.sections["prompts"].figures["unique_prompts"]
    decided = golds.right + golds.wrong
    facts = _noise(report, (golds.wrong / decided if decided else None, decided))
    return {
        **facts,
        "cyclic": conflicts.get("cyclic_prompts", 0) / unique if unique else 0.0,
        "longer_wins": length["auc"]["auc"] if length else None,
        "length_bias": _biased(report),
        "lengths_apart": length["apart"] if length else None,
        "near_identical": likeness["near_identical"] / likeness["compared"] if likeness else None,
    }


def _of_thumbs(report: Report, _: Golds) -> dict[str, Any]:
    labels, length = report.sections["labels"].figures, report.sections["length"].figures
    longer = length.get("feedback")
    return {
        **_noise(report, (None, 0)),
        "liked": labels.get("share_liked"),
        "longer_wins": longer["auc"]["auc"] if longer else None,
        "length_bias": _biased(report),
    }


_OF_KIND: Mapping[RecordKind, Callable[[Report, Golds], dict[str, Any]]] = {
    "preference": _of_pairs, "feedback": _of_thumbs,
}  # fmt: skip


def _biased(report: Report) -> bool:
    return any(one.code == "length_bias" for one in report.sections["length"].findings)


def _noise(report: Report, of_golds: tuple[float | None, int]) -> dict[str, Any]:
    """The share of wrong labels, from whatever knows most: several annotators, golds, rows that
    were labelled again. Nothing that knows is no noise, of 0 items."""
    people = report.sections["annotators"].figures
    again = report.sections["conflicts"].figures
    agreement = again.get("agreement_again")
    estimates = [
        (people.get("label_noise"), people.get("items", 0)),
        of_golds,
        (None if agreement is None else label_noise(agreement, 2), again.get("labelled_again", 0)),
    ]
    known = [(items, noise) for noise, items in estimates if noise is not None]
    items, noise = max(known, default=(0, 0.0))
    return {"noise": noise, "noise_items": items}
