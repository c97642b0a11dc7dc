"""The order of turns, which strict chat templates refuse where it is unusual."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from strop.curate.check.finding import EXAMPLES, Section, finding, graded
from strop.curate.check.ledger import answers_of
from strop.curate.check.survey import share
from strop.types import Document, Message, Origin, Record

WORTH_A_WARNING = 0.01


@dataclass(slots=True)
class Turns:
    """Watches the turns of the records as they pass: how many there are, and in what order."""

    rows: int = 0
    turns: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    faulty: int = 0
    places: list[Origin] = field(default_factory=list)

    def watch(self, record: Record) -> None:
        if isinstance(record, Document):
            return
        self.rows += 1
        conversations = list(_conversations(record))
        self.turns[max(map(len, conversations), default=1)] += 1
        found = {fault for turns in conversations for fault in turn_faults(turns)}
        self.faults.update(found)
        if found:
            self.faulty += 1
            if len(self.places) < EXAMPLES:
                self.places.append(record.origin)


def _conversations(record: Record) -> Iterator[list[Message]]:
    """The prompt with each of its answers, as turns."""
    assert not isinstance(record, Document)
    answers = answers_of(record)
    opening = _turns(record.prompt, "user")
    if not answers:
        yield opening
    for answer in answers:
        yield [*opening, *_turns(answer, "assistant")]


def _turns(text: str | list[Message], role: str) -> list[Message]:
    return [{"role": role, "content": text}] if isinstance(text, str) else text


def turn_faults(turns: list[Message]) -> Iterator[str]:
    """What strict templates refuse in a conversation: `"two user turns in a row"`.

    An assistant turn behind another one is none: it goes on with an answer that the prompt began.
    """
    calls = False
    for place, turn in enumerate(turns):
        role = turn["role"]
        before = turns[place - 1]["role"] if place else ""
        if role == before == "user":
            yield "two user turns in a row"
        if role in ("system", "developer") and place:
            yield "a system turn that is not the first"
        if role in ("tool", "function") and not calls:
            yield "a tool's result without a call before it"
        calls = calls or bool(turn.get("tool_calls") or turn.get("function_call"))
    if turns and not any(turn["role"] == "user" for turn in turns):
        yield "no user turn"


def turn_order(turns: Turns) -> Section:
    """Turns a row, and rows in an order that strict templates refuse."""
    ordered = {str(n): turns.turns[n] for n in sorted(turns.turns)[:20]}
    figures = {"turns": ordered, "faults": dict(turns.faults.most_common())}
    if not turns.faulty:
        return Section("turns", figures)
    part = share(turns.faulty, turns.rows)
    counted = ", ".join(f"{name} ({count:,})" for name, count in turns.faults.most_common())
    text = f"{turns.faulty:,} rows ({part:.1%}) have turns that strict templates refuse: {counted}"
    severity = graded(part, WORTH_A_WARNING)
    return Section(
        "turns", figures, (finding("turn_order", severity, text, turns.faulty, turns.places),)
    )
