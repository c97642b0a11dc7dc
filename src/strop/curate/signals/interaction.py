"""What every source is brought to: a conversation, its answers, and what was said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from strop.types import Message, Origin

SignalKind = Literal[
    "mark", "thumb", "verdict", "score", "edit", "choice", "regenerated", "demonstration",
    "reference",
]  # fmt: skip
"""What a signal says of an answer:

    mark           a named value whose meaning its name decides (`rules.meaning`)
    thumb          a person liked it (value a bool)
    verdict        it was checked and is right (value a bool)
    score          a number, the higher the better
    edit           a person wrote it anew (value the new answer)
    choice         it was chosen among the answers of the interaction
    regenerated    it was given when the user asked again (value the id of the earlier answer)
    demonstration  a person wrote or approved it as it stands
    reference      the right answer to the prompt (value the text, or an object)
"""


@dataclass(frozen=True, slots=True)
class Signal:
    """One thing that was said of an answer.

    `Signal("mark", "user_feedback", 1.0, label="thumbs_up", origin=Origin("spans.jsonl", 7))`;
    `answer` is the place of the answer among those of its interaction (the last unless given),
    `label` the word that came with the value, `by` who judged where the source says it.
    """

    kind: SignalKind
    name: str
    value: Any
    origin: Origin
    label: str | None = None
    answer: int = -1
    time: datetime | None = None
    by: str | None = None


def number_in(text: str) -> float | None:
    """The number that a text is: `number_in("0.5") == 0.5`; `None` for any other text."""
    try:
        return float(text) if len(text) < 40 else None
    except ValueError:
        return None


def mark(
    name: str,
    value: Any,
    origin: Origin,
    *,
    label: Any = None,
    time: datetime | None = None,
    by: str | None = None,
) -> Signal:
    """A mark whose value is a word, a number or a bool: `mark("thumbs", "up", origin)`.

    A number may be written as text, as in a CSV file.
    """
    words = (one for one in (label, value) if isinstance(one, str))
    number = number_in(value) if isinstance(value, str) else value
    number = number if isinstance(number, bool | int | float) else None
    return Signal("mark", name, number, origin, label=next(words, None), time=time, by=by)


@dataclass(frozen=True, slots=True)
class Interaction:
    """One request with what was answered, in the same form from every source.

    `Interaction("langfuse", [{"role": "user", "content": "2x = 6?"}],
    ([{"role": "assistant", "content": "x = 3"}],), Origin("traces.jsonl", 3), id="obs-1",
    trace_id="t-1", signals=(Signal(...),))`. `prompt` is `None` where another row holds it, the
    `Request` named by `request`; `answers` is empty where none came. `aliases` are further names by
    which signals may refer to it, `session` the conversation of one user, `columns` what goes
    beside the record (`tools`). With `plain` the model read and wrote text, no chat: so are the
    records. `whole` marks the view of a whole trace (an agent's run), which
    gives way to the model's own calls where the export has them.
    """

    source: str
    prompt: list[Message] | None
    answers: tuple[list[Message], ...]
    origin: Origin
    id: str | None = None
    trace_id: str | None = None
    time: datetime | None = None
    signals: tuple[Signal, ...] = ()
    aliases: tuple[str, ...] = ()
    session: str | None = None
    request: str | None = None
    whole: bool = False
    plain: bool = False
    columns: Mapping[str, Any] = field(default_factory=dict)

    def meta(self) -> dict[str, Any]:
        """Where it came from, as a record keeps it:
        `{"source": "langfuse", "trace_id": "t-1", "time": "2026-01-05T10:00:00+00:00"}`."""
        time = None if self.time is None else self.time.isoformat()
        found = {"source": self.source, "trace_id": self.trace_id or self.id, "time": time}
        return found | ({"plain": True} if self.plain else {})


@dataclass(frozen=True, slots=True)
class Note:
    """A signal in a row of its own: `Note(("obs-1",), Signal(...))`.

    `refers` are the names of what it is about, the most telling first: an interaction by its id or
    an alias, or `trace_key("t-1")`, which stands for the last answer of that trace.
    """

    refers: tuple[str, ...]
    signal: Signal


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt whose answer stands in another row: `Request("request-7", [...], origin)`."""

    id: str
    prompt: list[Message]
    origin: Origin
    columns: Mapping[str, Any] = field(default_factory=dict)


Found = Interaction | Note | Request
"""What a row of a source can hold."""


def trace_key(trace_id: str) -> str:
    """The name by which a signal refers to a whole trace, apart from the ids of answers."""
    return f"trace {trace_id}"
