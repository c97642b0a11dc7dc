"""Pairs of answers that people have judged: what a judge is calibrated on."""

from __future__ import annotations

import difflib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strop.data.forms import Row
from strop.data.items import cluster_of, item_of
from strop.data.messages import text_of
from strop.data.records import preference
from strop.data.sources import rows
from strop.errors import DataError
from strop.files import sha256_hex
from strop.judge.asking.question import Question
from strop.text.parse import spoken
from strop.types import Origin, Task, Text

LABELS: Mapping[Any, float] = {"A": 1.0, "B": 0.0, "tie": 0.5, 1: 1.0, 0: 0.0, 0.5: 0.5}
"""For the first answer, for the second, for neither."""

OURS = ("prompt", "answers", "human", "own", "id", "cluster", "criterion", "judge", "confidence")
"""Columns that say something of the two answers as they stand."""

OF_PREFERENCE = ("chosen", "rejected", "preferred_output", "non_preferred_output")
"""Columns of preference pairs."""

NOWHERE = Origin("", 0)
"""Where a pair stands that no file holds."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """`Anchor(Question("7", "Name a river.", ("The Rhine.", "Rain.")), human=(1.0, 1.0, 0.5),
    cluster="7")`: what each person said, `None` where a person said nothing. `own` is 1 where the
    first answer is of the judge's own family and the second is not, -1 for the reverse, else 0.
    `chosen` is the place (0 or 1) of a preference pair's chosen answer. `given` are the answers as
    they were read, with calls and thoughts, and `columns` what stood beside them."""

    question: Question
    human: tuple[float | None, ...]
    cluster: str
    own: int = 0
    chosen: int | None = None
    given: tuple[Text, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin = NOWHERE


def read_anchors(path: str | Path) -> list[Anchor]:
    """Rows `{"prompt", "answers": [a, b], "human": label or list of labels}` with the labels "A",
    "B" and "tie" (or 1, 0, 0.5, or null), or preference pairs, whose chosen answer a person
    preferred; optional: `id`, `cluster`, `criterion`, and `own` ("A" or "B"; of a preference pair
    "A" is the chosen answer): which answer is of the judge's own family, if only one is.

    Of a preference pair either answer may come first, by a hash of the pair: else every anchor
    would be of one class. Raises `DataError` for a row of another form, labels of different
    numbers of people, or two rows of one id.
    """
    found = _read(path, _anchor)
    people = {len(anchor.human) for anchor in found}
    if len(people) > 1:
        raise DataError(
            f"rows hold the labels of {min(people)} to {max(people)} people", where=str(path),
            fix="give every row as many labels, null where a person said nothing",
        )  # fmt: skip
    return found


def read_pairs(path: str | Path) -> list[Anchor]:
    """The same rows with or without labels: pairs that are still to be judged."""
    return _read(path, _unlabelled)


def _unlabelled(row: Row, origin: Origin) -> Anchor:
    return _anchor({"human": None, **row} if "answers" in row else row, origin)


def expect_joined(recorded: str | None, pairs: Sequence[Anchor], path: str | Path) -> None:
    """Raise `DataError` for recorded verdicts that cannot be those of these pairs; nothing where
    nothing is recorded.

    Rows of chosen and rejected are shown in an order of strop's own, which A and B of a record
    cannot mean; and two records of one question contradict each other. Records of no pair are
    counted in a warning.
    """
    if recorded is None:
        return
    if any(pair.chosen is not None for pair in pairs):
        raise DataError(
            "recorded verdicts name A and B, and rows of chosen and rejected have no order",
            where=str(path), fix='write the pairs as they were shown: "answers": [a, b], "human"',
        )  # fmt: skip
    counts = Counter(str(row["item"]) for row, _ in rows(Path(recorded)) if "item" in row)
    twice = [item for item, times in counts.items() if times > 1]
    if twice:
        raise DataError(f"{len(twice)} items have two records or more, the first: {twice[0]!r}",
                        where=recorded, fix="keep one record of each item")  # fmt: skip
    known = {pair.question.item for pair in pairs}
    strange = [
        item for item in counts if item not in known and item.rpartition(" ")[0] not in known
    ]
    if strange:
        warnings.warn(f"{len(strange)} of {len(counts)} recorded items are of no pair, the first: "
                      f"{strange[0]!r}", stacklevel=2)  # fmt: skip


def _read(path: str | Path, convert: Callable[[Row, Origin], Anchor]) -> list[Anchor]:
    """All rows as pairs. Raises one `DataError` for all that are none, with the first's reason."""
    found: list[Anchor] = []
    wrong: list[tuple[Origin, DataError]] = []
    asked: set[str] = set()
    for row, origin in rows(Path(path)):
        asked |= row.keys()
        try:
            found.append(convert(row, origin))
        except DataError as error:
            wrong.append((origin, error))
    if wrong:
        first = wrong[0][1]
        if len(wrong) == 1:
            raise first
        lines = ", ".join(str(origin.line) for origin, _ in wrong[:5])
        more = " ..." if len(wrong) > 5 else ""
        said = f"{len(wrong)} rows are no pairs (lines {lines}{more}); the first: {first.problem}"
        raise DataError(said, where=str(wrong[0][0]), fix=first.fix)
    for name in sorted(asked - set(OURS)):
        if near := difflib.get_close_matches(name, OURS, 1, 0.75):
            warnings.warn(f"{path}: the column `{name}` is not read; did you mean `{near[0]}`?",
                          stacklevel=2)  # fmt: skip
    return _told_apart(found, path)


def _told_apart(found: list[Anchor], path: str | Path) -> list[Anchor]:
    """Raise `DataError` where there is no pair, or two have one id."""
    if not found:
        raise DataError("the file holds no pairs", where=str(path), fix="add pairs")
    [(item, times)] = Counter(anchor.question.item for anchor in found).most_common(1)
    if times > 1:
        twice = [str(anchor.origin) for anchor in found if anchor.question.item == item]
        raise DataError(f"{times} rows are {item!r}", where=" and ".join(twice[:2]),
                        fix="drop one of them, or give each an `id` of its own")  # fmt: skip
    return found


def _anchor(row: Row, origin: Origin) -> Anchor:
    if "answers" not in row:
        if not any(name in row for name in OF_PREFERENCE):
            raise DataError(
                f"the row holds no two answers: found {{{', '.join(row)}}}", where=str(origin),
                fix='write {"prompt", "answers": [a, b], "human": "A"}, or {"prompt", "chosen", '
                '"rejected"}',
            )  # fmt: skip
        return _of_preference(row, origin)
    said = row["answers"]
    prompt = text_of(row.get("prompt"), "prompt", origin)
    if not isinstance(said, list) or len(said) != 2 or "human" not in row:
        raise DataError("the row is no labelled pair", where=str(origin),
                        fix='write {"prompt", "answers": [a, b], "human": "A"}')  # fmt: skip
    given = tuple(text_of(one, "answers", origin) for one in said)
    answers = tuple(map(spoken, given))
    labels = row["human"] if isinstance(row["human"], list) else [row["human"]]
    if not labels:
        raise DataError("`human` is an empty list", where=str(origin),
                        fix="write null where nobody said anything")  # fmt: skip
    human = tuple(_label(value, origin) for value in labels)
    named = {name: row[name] for name in ("id", "cluster") if name in row}
    task = Task(prompt, {"answers": list(answers), **named}, origin)
    criterion = str(row.get("criterion", ""))
    question = Question(item_of(task), prompt, answers, criterion)
    others = {name: value for name, value in row.items() if name not in OURS}
    own = _own(row.get("own"), origin)
    return Anchor(
        question, human, cluster_of(task), own, given=given, columns=others, origin=origin
    )


def _of_preference(row: Row, origin: Origin) -> Anchor:
    if "human" in row:
        raise DataError("a preference pair says by itself what a person preferred",
                        where=str(origin), fix="drop `human`, or give `answers`")  # fmt: skip
    pair = preference(row, origin)
    answers = (spoken(pair.chosen), spoken(pair.rejected))
    item = item_of(pair)
    first = int(sha256_hex(f"order {item}", 8), 16) % 2 == 0
    question = Question(
        item, pair.prompt, answers if first else answers[::-1], str(row.get("criterion", ""))
    )
    own = _own(row.get("own"), origin) * (1 if first else -1)
    given = (pair.chosen, pair.rejected) if first else (pair.rejected, pair.chosen)
    others = {name: value for name, value in pair.columns.items() if name not in OURS}
    return Anchor(
        question, (float(first),), cluster_of(pair), own, 0 if first else 1, given, others, origin
    )


def _own(value: Any, origin: Origin) -> int:
    if value not in ("A", "B", None):
        raise DataError(f"`own` is {value!r}", where=str(origin),
                        fix='write "A", "B" or null')  # fmt: skip
    return {"A": 1, "B": -1, None: 0}[value]


def _label(value: Any, origin: Origin) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value not in LABELS:
        raise DataError(f"the label {value!r} is none", where=str(origin),
                        fix='write "A", "B" or "tie" (or 1, 0, 0.5, or null)')  # fmt: skip
    return LABELS[value]


def by_person(anchors: Sequence[Anchor]) -> Iterator[list[float | None]]:
    """The labels of every person, over all pairs."""
    for person in range(len(anchors[0].human)):
        yield [anchor.human[person] for anchor in anchors]
