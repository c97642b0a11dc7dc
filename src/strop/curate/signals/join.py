"""Signals and answers of all files brought together, whatever row of whatever file they stand in.

Everything is read twice. The first reading keeps, of every interaction, hashes of its names, of its
trace and of its prompt, and every signal that stands in a row of its own; the second streams the
interactions past with the signals that are theirs.
"""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from strop.curate.signals.interaction import Found, Interaction, Note, Request, Signal
from strop.curate.signals.interaction import trace_key as key_of_trace
from strop.curate.signals.rules import Numbers
from strop.files import digest64
from strop.types import Message

Digest = int
"""Eight bytes of a hash: a name or a prompt at a tenth of the memory of its text."""


def digest(value: Any) -> Digest:
    """`digest("r-1")`, or of messages: equal ones have equal digests."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return digest64(text)


@dataclass(frozen=True, slots=True)
class Joined:
    """An interaction with everything that was said of it.

    `group` is what its answers are compared within: the chain of regenerations it belongs to, or
    its prompt where others have it, too; `None` where it stands alone. `state` is `"repeated"` for
    one that was read before, and `"whole_trace"` for the view of a trace whose own calls are here.
    `step` counts the answers that it was given in place of.
    """

    place: int
    interaction: Interaction
    signals: tuple[Signal, ...]
    group: tuple[str, int] | None
    state: str | None = None
    step: int = 0


@dataclass(slots=True)
class Index:
    """What the first reading keeps. `add` everything in order, `close`, then `joined` in the same
    order."""

    interactions: int = 0
    notes: list[Note] = field(default_factory=list)
    requests: dict[str, Request] = field(default_factory=dict)
    numbers: dict[str, Numbers] = field(default_factory=dict)
    """The numbers under every name of a mark."""
    names: set[str] = field(default_factory=set)
    """The names of all signals."""
    chains: Chains = field(init=False)
    """Answers given in place of others; there once it is closed."""
    unmatched: list[Note] = field(default_factory=list)
    asked_again: int = 0
    """Interactions whose prompt was asked before in the same session."""
    shared_ids: int = 0
    """Interactions whose id an earlier, different one has: signals go to the earlier one."""
    infer_regenerations: bool = False
    referenced: set[Digest] = field(default_factory=set)
    """Prompts that some signal has the right answer to."""
    _asked: array[int] = field(default_factory=lambda: array("Q"))
    """Digest of the prompt of every interaction, 0 where it is not known."""
    _places: dict[Digest, int] = field(default_factory=dict)
    _wholes: dict[Digest, Digest] = field(default_factory=dict)
    _last: dict[Digest, tuple[bool, float, int]] = field(default_factory=dict)
    _repeated: set[int] = field(default_factory=set)
    _prompts: Counter[Digest] = field(default_factory=Counter)
    _waiting: list[tuple[int, str]] = field(default_factory=list)
    _sessions: dict[Digest, int] = field(default_factory=dict)
    _links: list[tuple[int, str]] = field(default_factory=list)
    _with_reference: list[int] = field(default_factory=list)
    _signals: dict[int, list[Signal]] = field(default_factory=dict)
    _given_for: dict[int, int] = field(default_factory=dict)

    def add(self, found: Found) -> None:
        """One thing of the first reading."""
        if isinstance(found, Interaction):
            self._asked.append(0 if found.prompt is None else digest(found.prompt))
            self._add(self.interactions, found)
            self.interactions += 1
            for signal in found.signals:
                self._note_name(signal)
        elif isinstance(found, Request):
            self.requests.setdefault(found.id, found)
        else:
            self.notes.append(found)
            self._note_name(found.signal)

    def _note_name(self, signal: Signal) -> None:
        self.names.add(signal.name)
        value = signal.value
        if signal.kind == "mark" and isinstance(value, int | float) and math.isfinite(value):
            self.numbers.setdefault(signal.name, Numbers()).see(value)

    def _add(self, place: int, one: Interaction) -> None:
        trace = digest(one.trace_id) if one.trace_id is not None else None
        if one.id is not None:
            own = digest([one.source, one.id, one.prompt, one.answers])
            if self._places.setdefault(own, place) != place:
                self._repeated.add(place)
                return
            named = self._places.get(digest(one.id), place) if not one.whole else place
            self.shared_ids += named != place
        for name in filter(None, (one.id, *one.aliases)):
            if one.whole and trace is not None:
                self._wholes.setdefault(digest(name), trace)
            else:
                self._places.setdefault(digest(name), place)
        if trace is not None:
            time = one.time.timestamp() if one.time is not None else -math.inf
            known = self._last.get(trace)
            self._last[trace] = max(known or (False, -math.inf, -1), (not one.whole, time, place))
        for signal in one.signals:
            self._refer(place, signal)
        if one.prompt is not None:
            self._count_prompt(place, one.session)
        elif one.request is not None:
            self._waiting.append((place, one.request))

    def _refer(self, place: int, signal: Signal) -> None:
        if signal.kind == "regenerated":
            self._links.append((place, str(signal.value)))
        elif signal.kind == "reference":
            self._with_reference.append(place)

    def _count_prompt(self, place: int, session: str | None = None) -> None:
        prompt = self._asked[place]
        self._prompts[prompt] += 1
        if session is None:
            return
        before = self._sessions.get(digest(f"{session} {prompt}"))
        self._sessions[digest(f"{session} {prompt}")] = place
        if before is not None:
            self.asked_again += 1
            if self.infer_regenerations:
                self._given_for[place] = before

    def close(self) -> None:
        """Say of every signal in a row of its own which interaction it belongs to."""
        for place, request in self._waiting:
            if request in self.requests:
                self._asked[place] = digest(self.requests[request].prompt)
                self._count_prompt(place)
        for note in self.notes:
            found = next((p for p in map(self._place, note.refers) if p is not None), None)
            if found is None:
                self.unmatched.append(note)
                continue
            self._signals.setdefault(found, []).append(note.signal)
            self._refer(found, note.signal)
        self.referenced = {self._asked[place] for place in self._with_reference}
        for place, name in self._links:
            before = self._place(name)
            if before is not None and before != place:
                self._given_for[place] = before
        self.chains = Chains(self._given_for)

    def _place(self, name: str) -> int | None:
        key = digest(name)
        if key in self._places:
            return self._places[key]
        trace = self._wholes.get(key)
        if trace is None and name.startswith(key_of_trace("")):
            trace = digest(name.removeprefix(key_of_trace("")))
        last = self._last.get(trace) if trace is not None else None
        return None if last is None else last[2]

    def joined(self, place: int, one: Interaction) -> Joined:
        """An interaction of the second reading, with its signals and its prompt."""
        if place in self._repeated:
            return Joined(place, one, one.signals, None, "repeated")
        if one.whole and one.trace_id is not None and self._last[digest(one.trace_id)][0]:
            return Joined(place, one, (), None, "whole_trace")
        asked = self.requests.get(one.request) if one.request is not None else None
        if one.prompt is None and asked is not None:
            columns = {**asked.columns, **one.columns}
            one = replace(one, prompt=asked.prompt, columns=columns)
        signals = (*one.signals, *self._signals.get(place, ()))
        group, step = self._group(place, one.prompt), self.chains.step(place)
        return Joined(place, one, signals, group, step=step)

    def _group(self, place: int, prompt: Sequence[Message] | None) -> tuple[str, int] | None:
        if place in self.chains:
            return "chain", self.chains.root(place)
        if prompt is None:
            return None
        key = digest(prompt)
        return ("prompt", key) if self._prompts[key] > 1 else None


class Chains:
    """Answers that were given in place of earlier ones: `Chains({2: 1, 5: 2})` is one chain of 1, 2
    and 5. A link that would close a circle is left out. Takes time that grows with the links."""

    def __init__(self, given_for: Mapping[int, int]) -> None:
        self._root: dict[int, int] = {}
        self._earlier: dict[int, int] = {}
        self._steps: dict[int, int] = {}
        for place, before in given_for.items():
            root = self.root(before)
            if root != place:
                self._earlier[place], self._root[place] = before, root
        self._members = {*self._earlier, *self._earlier.values()}

    def __contains__(self, place: int) -> bool:
        return place in self._members

    def root(self, place: int) -> int:
        """The first answer of a chain; the way to it is shortened for whoever asks next."""
        way = []
        while place in self._root:
            way.append(place)
            place = self._root[place]
        self._root |= dict.fromkeys(way, place)
        return place

    def step(self, place: int) -> int:
        """How many answers of its chain were given before this one."""
        way = []
        while place in self._earlier and place not in self._steps:
            way.append(place)
            place = self._earlier[place]
        steps = self._steps.get(place, 0)
        for one in reversed(way):
            steps += 1
            self._steps[one] = steps
        return steps


def latest(signals: Sequence[Signal]) -> Signal | None:
    """The signal that counts where several of one kind speak of one answer.

    Those that agree are one. Of others the latest counts; `None` where it is not clear which one
    that is, because a time is missing or the latest two differ at one time.
    """
    if all(one.value == signals[0].value for one in signals):
        return signals[-1]
    if any(one.time is None for one in signals):
        return None
    times: Mapping[Any, list[Signal]] = _by_time(signals)
    last = times[max(times)]
    return last[-1] if all(one.value == last[0].value for one in last) else None


def _by_time(signals: Sequence[Signal]) -> dict[Any, list[Signal]]:
    found: dict[Any, list[Signal]] = {}
    for one in signals:
        found.setdefault(one.time, []).append(one)
    return found


def by_answer(signals: Sequence[Signal], answers: int) -> Iterator[tuple[int, list[Signal]]]:
    """Signals by the answer that they speak of; those of no answer there is are left out."""
    found: dict[int, list[Signal]] = {}
    for one in signals:
        place = one.answer if one.answer >= 0 else answers + one.answer
        if 0 <= place < answers:
            found.setdefault(place, []).append(one)
    yield from found.items()
