"""Who said what of which pair, kept so that nothing is lost when a tab or the server is closed."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from strop.errors import DataError, UsageError
from strop.files import SHORT, append_line, read_text, sha256_hex, write_rows, write_whole
from strop.judge.trust.anchors import LABELS, Anchor
from strop.judge.trust.calibration import Agreement, human_ceiling, majority
from strop.types import Text

Choice = Literal["first", "second", "tie", "skip"]
"""What a person says of the two answers as they are shown; `skip`: cannot say."""

JOURNAL, PREFERENCES, ANCHORS = "labels.jsonl", "preferences.jsonl", "anchors.jsonl"
NAME = re.compile(r"[\w .@+-]{1,40}")
WORDS: Mapping[float | None, str | None] = {1.0: "A", 0.0: "B", 0.5: "tie", None: None}
MOST_JOURNAL_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Shown:
    """A pair as one person sees it: `Shown(number=3, anchor=Anchor(...), turned=True)`; `turned`
    says that the pair's second answer is shown first."""

    number: int
    anchor: Anchor
    turned: bool

    @property
    def answers(self) -> tuple[str, ...]:
        said = self.anchor.question.answers
        return said[::-1] if self.turned else said


@dataclass(slots=True)
class Ledger:
    """The labels of all people, in the folder `output`.

    Every label is on the disk, in `labels.jsonl`, before it is confirmed; a later one of the same
    person and pair takes its place. `preferences.jsonl` (pairs that most people decided) and
    `anchors.jsonl` (for `strop judge calibrate`) are written anew after each. Which answer is shown
    first is a hash of the pair and the person, so that the place neither gives away where an answer
    comes from nor changes when a tab is opened again.

    Raises `DataError` where the folder holds labels of pairs that are not among these.
    """

    pairs: Sequence[Anchor]
    output: Path
    _said: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """By person, then by item."""
    _numbers: dict[str, int] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._numbers = {pair.question.item: n for n, pair in enumerate(self.pairs)}
        self.output.mkdir(parents=True, exist_ok=True)
        for number, row in enumerate(_journal(self.output / JOURNAL), start=1):
            self._read(row, f"{self.output / JOURNAL}:{number}")
        self._export()

    @property
    def people(self) -> list[str]:
        """Everybody who labelled, in order of their first label."""
        return list(self._said)

    def done(self, person: str) -> int:
        """How many pairs a person has labelled."""
        return len(self._said.get(person, {}))

    def shown(self, person: str, number: int | None = None) -> Shown | None:
        """The pair of this number, from 0, or the first that the person has not labelled; `None`
        where there is none."""
        with self._lock:
            if number is None:
                said = self._said.get(person, {})
                number = next(
                    (n for item, n in self._numbers.items() if item not in said), len(self.pairs)
                )
        if not 0 <= number < len(self.pairs):
            return None
        item = self.pairs[number].question.item
        turned = int(sha256_hex(f"shown {person} {item}", 8), 16) % 2 == 1
        return Shown(number, self.pairs[number], turned)

    def given(self, person: str, shown: Shown) -> Choice | None:
        """What the person said of it before."""
        said = self._said.get(person, {})
        item = shown.anchor.question.item
        if item not in said:
            return None
        verdict = said[item]
        if verdict is None:
            return "skip"
        if verdict == 0.5:
            return "tie"
        return "first" if (verdict == 1.0) != shown.turned else "second"

    def named(self, person: str) -> str:
        """The person's name without spare blanks. Raises `UsageError` for a name that is none, and
        for one that differs from somebody's in capital letters only."""
        name = " ".join(person.split())
        if not NAME.fullmatch(name):
            raise UsageError("the name is none",
                             fix="use up to 40 letters, digits, blanks and . @ + -")  # fmt: skip
        with self._lock:
            same = [one for one in self._said if one.casefold() == name.casefold()]
        if same and name not in same:
            raise UsageError(f"{same[0]!r} labels here already",
                             fix="use that spelling, or another name")  # fmt: skip
        return name

    def say(self, person: str, item: str, choice: Choice) -> None:
        """Keep a label of somebody by name (`named`). Raises `UsageError` for a pair that is not
        here."""
        if item not in self._numbers:
            raise UsageError(f"no pair is called {item!r}", fix="load the page again")
        with self._lock:
            shown = self.shown(person, self._numbers[item])
            assert shown is not None
            verdict = _verdict(choice, shown.turned)
            row = {
                "item": item, "person": person, "label": WORDS[verdict],
                "pair": _identity(shown.anchor), "shown_first": "B" if shown.turned else "A",
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
            }  # fmt: skip
            append_line(self.output / JOURNAL, json.dumps(row))
            self._said.setdefault(person, {})[item] = verdict
            self._export()

    def agreement(self) -> Agreement | None:
        """How far people agree on the pairs that two or more of them labelled; `None` where there
        is no such pair."""
        with self._lock:
            columns = self._columns()
        labelled = list(zip(*columns, strict=True)) or [()] * len(self.pairs)
        common = [
            n for n, labels in enumerate(labelled) if sum(one is not None for one in labels) > 1
        ]
        return human_ceiling(
            [[column[n] for n in common] for column in columns],
            [self.pairs[n].cluster for n in common],
        )

    def _read(self, row: Mapping[str, Any], where: str) -> None:
        number = self._numbers.get(row["item"])
        if number is None or row["pair"] != _identity(self.pairs[number]):
            raise DataError(
                f"the label is of the pair {row['item']!r}, which is not among these", where=where,
                fix="give the pairs that were labelled, or another --output",
            )  # fmt: skip
        label = row["label"]
        verdict = None if label is None else LABELS[label]
        self._said.setdefault(row["person"], {})[row["item"]] = verdict

    def _columns(self) -> list[list[float | None]]:
        """What each person said of every pair, in the order of `people`."""
        items = [pair.question.item for pair in self.pairs]
        return [[said.get(item) for item in items] for said in self._said.values()]

    def _export(self) -> None:
        columns = self._columns()
        if not columns:
            return
        write_rows(self.output / ANCHORS, self._anchors(columns))
        write_rows(self.output / PREFERENCES, self._preferences(columns))

    def _anchors(self, columns: Sequence[Sequence[float | None]]) -> Iterator[dict[str, Any]]:
        for pair, *labels in zip(self.pairs, *columns, strict=True):
            if any(label is not None for label in labels):
                question = pair.question
                own = {1: "A", -1: "B", 0: None}[pair.own]
                yield {"id": question.item, "cluster": pair.cluster, "prompt": question.prompt,
                       "answers": list(question.answers), "criterion": question.criterion,
                       "own": own, "human": [WORDS[label] for label in labels]}  # fmt: skip

    def _preferences(self, columns: Sequence[Sequence[float | None]]) -> Iterator[dict[str, Any]]:
        """The answers as they were given, with calls and thoughts, and the columns beside them."""
        for pair, most, *labels in zip(self.pairs, majority(columns), *columns, strict=True):
            if most not in (0.0, 1.0):
                continue
            answers = pair.given if most == 1.0 else pair.given[::-1]
            chosen, rejected = (_in_form(answer, pair.question.prompt) for answer in answers)
            yield {
                **pair.columns, "id": pair.question.item, "cluster": pair.cluster,
                "prompt": pair.question.prompt, "chosen": chosen, "rejected": rejected,
                "people": sum(label is not None for label in labels),
                "agreeing": labels.count(most),
            }  # fmt: skip


def _journal(path: Path) -> list[dict[str, Any]]:
    """The rows of a journal; what a crash left of a last line is cut off."""
    if not path.exists():
        return []
    text = read_text(path, DataError, limit=MOST_JOURNAL_BYTES)
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_whole(path, whole)
    found = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            row = json.loads(line)
            known = {name: row[name] for name in ("item", "person", "label", "pair")}
        except (ValueError, KeyError, TypeError):
            raise DataError("the line is no label", where=f"{path}:{number}",
                            fix="restore it, or give another --output") from None  # fmt: skip
        if known["label"] not in WORDS.values():
            raise DataError(f"the label {known['label']!r} is none", where=f"{path}:{number}",
                            fix="restore it, or give another --output")  # fmt: skip
        found.append(known)
    return found


def _verdict(choice: Choice, turned: bool) -> float | None:
    if choice in ("tie", "skip"):
        return 0.5 if choice == "tie" else None
    return float((choice == "first") != turned)


def _identity(pair: Anchor) -> str:
    question = pair.question
    return sha256_hex(json.dumps([question.prompt, question.answers]), SHORT)


def _in_form(answer: Text, prompt: Text) -> Text:
    """An answer in the form of its prompt."""
    if isinstance(prompt, str) or not isinstance(answer, str):
        return answer
    return [{"role": "assistant", "content": answer}]
