"""Reads the signal of a production record (edit, thumb, score) and makes an eval item of it, or
none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strop.data.duplicates import LONG, Words, asked, words
from strop.data.forms import Row
from strop.data.records import fits, preference, task
from strop.errors import DataError
from strop.rewards.answer.read import stated_answer
from strop.text.parse import plain
from strop.types import Origin, Text

ITEMS = ("edit", "failed", "thumbs_down")
"""Signals that make an item: a better answer is known, a check failed, a user was unhappy."""

READ = ("prompt", "completion", "label", "edited", "score", "chosen", "rejected", "input",
        "preferred_output", "non_preferred_output")  # fmt: skip
"""Columns that are read; an item keeps all others as they are."""


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt whose answer was not good enough.

    `Item("edit", "Solve 2x = 6", bad="x = 4", better="x = 3", columns={"topic": "algebra"},
    origin=Origin("production.jsonl", 17))`; `better` is `None` where nobody wrote a better one.
    """

    signal: str
    prompt: Text
    bad: Text
    better: Text | None
    columns: Mapping[str, Any]
    origin: Origin

    @property
    def judge(self) -> str | None:
        """The built-in reward that can judge answers to this prompt; `None` if only a person
        can."""
        if self.columns.get("tests"):
            return "code_tests"
        if self.columns.get("schema"):
            return "json_schema"
        answer = self.columns.get("answer")
        if isinstance(answer, bool | None) or answer in ("", [], {}):
            return None
        if isinstance(answer, list | dict):
            return "tool_call"
        text = str(answer)
        return "exact_answer" if stated_answer(text) or len(words(text)) < LONG else None


def signal_of(row: Row, origin: Origin, below: float) -> tuple[str, Item | None]:
    """The strongest signal of a row, and its item.

    In order of strength: an edit, a thumb down, a `score` (failed if below `below`), a thumb up.
    Raises `DataError` for a broken row.
    """
    if row.get("edited") is None and fits("preference", row):
        pair = preference(row, origin)
        return "edit", Item("edit", pair.prompt, pair.rejected, pair.chosen, _kept(row), origin)
    prompt, bad = task(row, origin).prompt, _completion(row, origin)
    if row.get("edited") is not None:
        return _edit(row, prompt, bad, origin)
    label = row.get("label")
    if not isinstance(label, bool | None):
        raise DataError(f"`label` is {label!r}", where=str(origin), fix="use true, false or null")
    signal = "thumbs_down" if label is False else _by_score(row, origin, below)
    if signal == "no_signal" and label:
        return "thumbs_up", None
    return signal, Item(signal, prompt, bad, None, _kept(row), origin) if signal in ITEMS else None


def as_answer(answer: Text, chat: bool) -> Text:
    """An answer as one assistant message (`chat`) or as text."""
    if chat:
        return [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer
    return plain(answer)


def prompt_words(item: Item) -> Words:
    """The words of the item's prompt, for comparison."""
    return words(asked(item.prompt))


def _completion(row: Row, origin: Origin) -> Text:
    bad = row.get("completion")
    if isinstance(bad, str):
        return bad
    if isinstance(bad, list) and all(isinstance(turn, Mapping) for turn in bad):
        return [dict(turn) for turn in bad]
    problem = "`completion` is neither text nor a list of messages"
    raise DataError(
        problem if "completion" in row else f"no `completion`: found {{{', '.join(row)}}}",
        where=str(origin),
        fix="write what the model answered, or `chosen` and `rejected`",
    )


def _edit(row: Row, prompt: Text, bad: Text, origin: Origin) -> tuple[str, Item | None]:
    better = row["edited"]
    if not better or (isinstance(better, str) and not better.strip()):
        raise DataError("`edited` is empty", where=str(origin), fix="drop the line, or the column")
    if not plain(bad).strip():
        return "no_answer", None
    chat = isinstance(prompt, list) or isinstance(bad, list)
    sides = as_answer(better, chat) if isinstance(better, str) else better, as_answer(bad, chat)
    if sides[0] == sides[1]:
        return "unchanged_edit", None
    pair = preference({"prompt": prompt, "chosen": sides[0], "rejected": sides[1]}, origin)
    if plain(pair.chosen).split() == plain(pair.rejected).split():
        return "unchanged_edit", None
    return "edit", Item("edit", pair.prompt, pair.rejected, pair.chosen, _kept(row), origin)


def _by_score(row: Row, origin: Origin, below: float) -> str:
    if "score" not in row:
        return "no_signal"
    score = row["score"]
    if isinstance(score, bool | str | list | dict):
        raise DataError(f"`score` is {score!r}", where=str(origin), fix="use a number or null")
    if score is None or math.isnan(score):
        return "unscored"
    return "failed" if score < below else "passed"


def _kept(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in READ and value is not None}
