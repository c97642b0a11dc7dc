"""The second reading: every interaction becomes records, waits for others, or is counted out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from strop.curate.manifest import Output
from strop.curate.signals.compare import Compared, Held, compared, held_of
from strop.curate.signals.interaction import Interaction, Signal
from strop.curate.signals.join import Index, Joined, digest
from strop.curate.signals.judging import VERIFY, asked_about, judged
from strop.curate.signals.pairs import Balanced
from strop.curate.signals.records import COMPARED, REASONS, alone, task
from strop.curate.signals.rules import Rules, meaning
from strop.data.bad_rows import BadRow
from strop.judge.build import TrustedJudge
from strop.text.parse import plain
from strop.types import Demonstration, Feedback, Origin, Preference, Record, Task

FILES = {
    "preference": "preferences",
    "demonstration": "demonstrations",
    "feedback": "feedback",
    "task": "tasks",
}
"""The file of each kind of record, without its ending."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An interaction whose answers wait to be compared: where it stands, whether a record was made
    of it already, and why none was."""

    origin: Origin
    used: bool
    reason: str | None


@dataclass(slots=True)
class Maker:
    """Makes and counts. `make` every interaction in order, or `leave_out` what is of no use, then
    `close`: each interaction is then in exactly one of `used`, `without_signal` and `left_out`."""

    rules: Rules
    index: Index
    output: Output
    trusted: TrustedJudge | None = None
    """Who compares answers that nobody said anything about."""
    used: int = 0
    without_signal: int = 0
    conflicts: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    signals: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    records: Counter[str] = field(default_factory=Counter)
    judged: Counter[str] = field(default_factory=Counter)
    """Pairs that were given to the judge, by how they ended."""
    _groups: dict[tuple[str, int], list[Held]] = field(default_factory=dict)
    _unjudged: dict[tuple[str, int], list[Held]] = field(default_factory=dict)
    _waiting: dict[int, _Waiting] = field(default_factory=dict)
    _tasks: set[int] = field(default_factory=set)

    def make(self, joined: Joined) -> None:
        """The records of an interaction; its answers are kept where they are to be compared."""
        one = joined.interaction
        if joined.state is not None:
            self.leave_out(joined.state, one.origin)
            return
        if not joined.signals and not _in_chain(joined):
            if self.trusted is not None and one.prompt is not None and one.answers:
                self._give_to_judge(joined)
            else:
                self._without_signal(one)
            return
        signals, reason = self._understood(joined.signals)
        made = alone(one, signals, self.rules)
        self.conflicts += made.conflicts
        wrote = [self._write(kind, record) for kind, record in made.records]
        used = any(wrote) | self._task(one, signals)
        if wrote and not any(wrote):
            made.reasons.append("kind_not_asked")
        reason = next(iter(made.reasons), reason)
        if one.prompt is None or not one.answers or not _is_compared(joined, signals):
            self._settle(_Waiting(one.origin, used, reason))
            return
        self._waiting[joined.place] = _Waiting(one.origin, used, reason)
        group = joined.group or ("own", joined.place)
        self._groups.setdefault(group, []).extend(held_of(joined, signals))

    def close(self) -> Balanced | None:
        """Compare the answers that waited; how the lengths of verified pairs were balanced."""
        asked = "preference" in self.rules.kinds
        found = compared(self._groups if asked else {}, self.rules)
        for pair in found.pairs:
            self._write("preference", pair)
        if self.trusted is not None and asked:
            self._ask_judge(self.trusted, found)
        for place, one in self._waiting.items():
            reason = one.reason or (found.reasons.get(place) if asked else "kind_not_asked")
            self._settle(_Waiting(one.origin, one.used or place in found.used, reason))
        return found.lengths

    def _give_to_judge(self, joined: Joined) -> None:
        """Keep the answers until all that could be compared with them are there."""
        one = joined.interaction
        used = self._task(one, ()) if self.rules.all_prompts else False
        self._waiting[joined.place] = _Waiting(one.origin, used, None)
        group = joined.group or ("own", joined.place)
        self._unjudged.setdefault(group, []).extend(held_of(joined, ()))

    def _ask_judge(self, trusted: TrustedJudge, found: Compared) -> None:
        """Write the judge's pairs and those to verify; without an output nothing is asked."""
        groups = list(self._unjudged.values())
        if self.output.folder is None:
            self.judged["not_asked"] = asked_about(groups)
            for place in (one.place for held in groups for one in held):
                found.reasons.setdefault(place, "not_asked")
            return
        made = judged(groups, trusted)
        before = len(found.pairs)
        for pair in made.pairs:
            found.keep(pair)
        for record in found.pairs[before:]:
            self._write("preference", record)
        for row in made.to_verify:
            self.output.keep(row, VERIFY)
        for place, reason in made.reasons.items():
            found.reasons.setdefault(place, reason)
        self.judged = made.told

    def leave_out(self, reason: str, origin: Origin, said: str | None = None) -> None:
        """Count an interaction as left out, and note it with its line."""
        self.left_out[reason] += 1
        self.output.drop(BadRow(reason, said or REASONS[reason], origin, excess=True))

    def _settle(self, one: _Waiting) -> None:
        if one.used:
            self.used += 1
        else:
            self.leave_out(one.reason or "kind_not_asked", one.origin)

    def _without_signal(self, one: Interaction) -> None:
        self.without_signal += 1
        if self.rules.all_prompts:
            self._task(one, ())

    def _understood(self, given: tuple[Signal, ...]) -> tuple[tuple[Signal, ...], str | None]:
        """The signals whose meaning is known, and why there are none where there are none."""
        known, reason = [], None
        for signal in given:
            read = meaning(signal, self.rules, self.index.numbers)
            if read is None:
                reason = "neutral"
                self.signals[f"neutral {signal.name}"] += 1
            elif read.kind == "mark":
                reason = reason or "unread_signal"
                self.unread[signal.name] += 1
            else:
                known.append(read)
                self.signals[f"{read.kind} {read.name}"] += 1
        return tuple(known), None if known else reason

    def _task(self, one: Interaction, signals: tuple[Signal, ...]) -> bool:
        """Write the prompt as a task, once; whether that is what the signals were for."""
        if "task" not in self.rules.kinds or one.prompt is None:
            return False
        has_answer = any(signal.kind == "reference" for signal in signals)
        asked = digest(one.prompt)
        is_new = asked not in self._tasks and (has_answer or asked not in self.index.referenced)
        if is_new:
            self._tasks.add(asked)
            self._write("task", task(one, signals))
        return has_answer or self.rules.kinds == ("task",)

    def _write(self, kind: str, record: Record) -> bool:
        if kind not in self.rules.kinds:
            return False
        self.output.keep(in_its_form(record), FILES[kind])
        self.records[kind] += 1
        return True


def in_its_form(record: Record) -> Record:
    """The record as text, where the model read and wrote text: then a chat template would make
    another prompt of it."""
    meta = record.columns.get("meta")
    if not isinstance(meta, dict) or not meta.get("plain"):
        return record
    match record:
        case Preference():
            return replace(record, prompt=plain(record.prompt), chosen=plain(record.chosen),
                           rejected=plain(record.rejected))  # fmt: skip
        case Demonstration() | Feedback():
            return replace(record, prompt=plain(record.prompt), completion=plain(record.completion))
        case Task():
            return replace(record, prompt=plain(record.prompt))
    return record


def _in_chain(joined: Joined) -> bool:
    return joined.group is not None and joined.group[0] == "chain"


def _is_compared(joined: Joined, signals: tuple[Signal, ...]) -> bool:
    """Whether an answer says something only beside other answers to the prompt."""
    return _in_chain(joined) or any(signal.kind in COMPARED for signal in signals)
