"""Pairs of answers that people have judged: what a judge is calibrated on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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


def read_anchors(path: str | Path) -> list[Anchor]:
    """Rows `{"prompt", "answers": [a, b], "human": label or list of labels}` with the labels "A",
    "B" and "tie" (or 1, 0, 0.5, or null), or preference pairs, whose chosen answer a person
    preferred; optional: `id`, `cluster`, `criterion`, and `own` ("A" or "B"; of a preference pair
    "A" is the chosen answer): which answer is of the judge's own family, if only one is.

    Of a preference pair either answer may come first, by a hash of the pair: else every anchor
    would be of one class. Raises `DataError` for a row of another form, labels of different
    numbers of people, or two rows of one id.
    """
    found = _told_apart([_anchor(row, origin) for row, origin in rows(Path(path))], path)
    people = {len(anchor.human) for anchor in found}
    if len(people) > 1:
        raise DataError(
            f"rows hold the labels of {min(people)} to {max(people)} people", where=str(path),
            fix="give every row as many labels, null where a person said nothing",
        )  # fmt: skip
    return found


def read_pairs(path: str | Path) -> list[Anchor]:
    """The same rows with or without labels: pairs that are still to be judged."""
    return _told_apart(
        [
            _anchor({"human": None, **row} if "answers" in row else row, origin)
            for row, origin in rows(Path(path))
        ],
        path,
    )


def _told_apart(found: list[Anchor], path: str | Path) -> list[Anchor]:
    """Raise `DataError` where there is no pair, or two have one id."""
    if not found:
        raise DataError("the file holds no pairs", where=str(path), fix="add pairs")
    [(item, times)] = Counter(anchor.question.item for anchor in found).most_common(1)
    if times > 1:
        raise DataError(f"two rows are {item!r}", where=str(path), fix="drop one of them")
    return found


def _anchor(row: Row, origin: Origin) -> Anchor:
    if "answers" not in row:
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
    return Anchor(question, human, cluster_of(task), own, given=given, columns=others)


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
        question, (float(first),), cluster_of(pair), own, 0 if first else 1, given, others
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
