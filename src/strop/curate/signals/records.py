"""One interaction and its signals -> the records that they make by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from strop.curate.signals.interaction import Interaction, Signal
from strop.curate.signals.join import by_answer, latest
from strop.curate.signals.rules import Rules
from strop.curate.signals.sources.values import answer as answer_of
from strop.errors import DataError
from strop.text.distance import edit_distance
from strop.text.parse import plain
from strop.types import Demonstration, Feedback, Message, Preference, Record, Task

REASONS = {
    "repeated": "the same interaction was read before",
    "whole_trace": "the model's own calls of this trace are read in its place",
    "no_prompt": "nothing says what was asked",
    "no_answer": "nothing says what was answered",
    "content_part": "it holds images, audio or files",
    "conflict": "signals on one answer contradict each other, and no time says which is the latest",
    "unread_signal": "the names of its signals do not say what they mean",
    "neutral": "the rating is in the middle",
    "no_such_answer": "its signals speak of an answer that is not there",
    "disliked": "what was sent was disliked",
    "unreadable_edit": "the edit is neither text nor messages",
    "whitespace_edit": "the edit changes only spaces",
    "small_edit": "the edit changes too little",
    "large_edit": "the edit changes too much to be the same answer",
    "same_answer": "both answers say the same",
    "one_answer": "its answer is compared with no other answer to the prompt",
    "equal_scores": "all answers to the prompt have one score",
    "several_scores": "its answers have several scores, and none was named",
    "no_counterpart": "no right and wrong answers to the prompt that are left to pair",
    "length_balance": "its pair was given away by the lengths of its answers",
    "not_accepted": "the last answer was disliked, too",
    "prompt_changed": "the user asked something else the second time",
    "other_answer": "a better pair of the same prompt was made",
    "nothing_said": "its answer holds no words that a judge could be shown",
    "not_asked": "a dry run asks no judge",
    "judge_missing": "the judge gave no verdict on its pair",
    "judge_disagrees": "the judge's verdict on its pair is a tie, or changes with the order",
    "judge_unsure": "the judge is less sure of its pair than its card asks for",
    "kind_not_asked": "its records are of a kind that was not asked for",
}
"""Why an interaction with signals made no record."""

COMPARED = ("verdict", "score")
"""Signals that say something once there are several answers to a prompt."""


@dataclass(slots=True)
class Made:
    """What came of one interaction: records by file name, and what was in the way of others."""

    records: list[tuple[str, Record]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    conflicts: int = 0


def alone(one: Interaction, signals: tuple[Signal, ...], rules: Rules) -> Made:
    """The records of thumbs, edits, demonstrations and choices: those that need no other
    interaction. `signals` are those whose meaning is known."""
    made = Made()
    if one.prompt is None or not one.answers:
        made.reasons.append("no_prompt" if one.prompt is None else "no_answer")
        return made
    disliked = _thumbs(one, signals, made)
    _edits(one, signals, rules, disliked, made)
    _demonstrations(one, signals, disliked, made)
    _choices(one, signals, made)
    spoken = [s for s in signals if s.kind not in ("reference", "regenerated", "mark")]
    if spoken and not any(True for _ in by_answer(spoken, len(one.answers))):
        made.reasons.append("no_such_answer")
    return made


def meta(one: Interaction, signal: str) -> dict[str, Any]:
    """The column `meta` of a record: source, trace, time, and the signal that it came from."""
    return {"meta": {**one.meta(), "signal": signal}}


def columns(one: Interaction, signal: str, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The columns beside a record's own."""
    return {**one.columns, **(more or {}), **meta(one, signal)}


def _of(kind: str, signals: tuple[Signal, ...]) -> list[Signal]:
    return [one for one in signals if one.kind == kind]


def _thumbs(one: Interaction, signals: tuple[Signal, ...], made: Made) -> list[list[Message]]:
    """Feedback of every answer with a thumb; the answers that were disliked, or may have been."""
    assert one.prompt is not None
    disliked = []
    for place, own in by_answer(_of("thumb", signals), len(one.answers)):
        made.conflicts += len({signal.value for signal in own}) > 1
        counts = latest(own)
        if counts is None:
            made.reasons.append("conflict")
            disliked.append(one.answers[place])
            continue
        if not counts.value:
            disliked.append(one.answers[place])
        extra = columns(one, f"thumb {counts.name}")
        label = bool(counts.value)
        record = Feedback(one.prompt, one.answers[place], label, extra, counts.origin)
        made.records.append(("feedback", record))
    return disliked


def _edits(
    one: Interaction,
    signals: tuple[Signal, ...],
    rules: Rules,
    disliked: list[list[Message]],
    made: Made,
) -> None:
    """Of every edited answer a preference and a demonstration, where the edit is of use."""
    assert one.prompt is not None
    for place, own in by_answer(_of("edit", signals), len(one.answers)):
        counts = latest(own)
        made.conflicts += len({str(signal.value) for signal in own}) > 1
        if counts is None:
            made.reasons.append("conflict")
            continue
        try:
            edited = answer_of(counts.value, "edit", counts.origin)
        except DataError:
            edited = []
        before = one.answers[place]
        reason = "disliked" if edited in disliked else edit_fault(before, edited, rules.edits)
        if reason is not None:
            made.reasons.append(reason)
            continue
        far = {"edit_distance": round(edit_distance(plain(before), plain(edited)), 4)}
        extra = columns(one, f"edit {counts.name}", far)
        pair = Preference(one.prompt, edited, before, extra, counts.origin)
        shown = Demonstration(one.prompt, edited, extra, counts.origin)
        made.records += [("preference", pair), ("demonstration", shown)]


def edit_fault(
    before: list[Message], after: list[Message], bounds: tuple[float, float]
) -> str | None:
    """Why an edit is of no use; `None` where it is."""
    if not after:
        return "unreadable_edit"
    old, new = plain(before), plain(after)
    if old.split() == new.split():
        return "whitespace_edit" if old != new or before == after else "same_answer"
    distance = edit_distance(old, new)
    if distance < bounds[0]:
        return "small_edit"
    return "large_edit" if distance > bounds[1] else None


def _demonstrations(
    one: Interaction, signals: tuple[Signal, ...], disliked: list[list[Message]], made: Made
) -> None:
    assert one.prompt is not None
    shown = [record.completion for _, record in made.records if isinstance(record, Demonstration)]
    for place, own in by_answer(_of("demonstration", signals), len(one.answers)):
        answer = one.answers[place]
        if answer in disliked:
            made.reasons.append("disliked")
        elif answer not in shown:
            extra = columns(one, f"demonstration {own[-1].name}")
            record = Demonstration(one.prompt, answer, extra, own[-1].origin)
            made.records.append(("demonstration", record))


def _choices(one: Interaction, signals: tuple[Signal, ...], made: Made) -> None:
    """A preference of the chosen answer to every other one."""
    assert one.prompt is not None
    given = _of("choice", signals)
    if not given:
        return
    places = {signal.answer for signal in given}
    made.conflicts += len(places) > 1
    counts = given[-1] if len(places) == 1 else _latest_choice(given)
    if counts is None:
        made.reasons.append("conflict")
        return
    if not 0 <= counts.answer < len(one.answers):
        return
    chosen = one.answers[counts.answer]
    others = [answer for answer in one.answers if plain(answer).split() != plain(chosen).split()]
    if not others:
        made.reasons.append("one_answer" if len(one.answers) == 1 else "same_answer")
    for other in others:
        extra = columns(one, f"choice {counts.name}")
        pair = Preference(one.prompt, chosen, other, extra, counts.origin)
        made.records.append(("preference", pair))


def _latest_choice(given: list[Signal]) -> Signal | None:
    """The latest of choices that differ; `None` where times do not say which one that is."""
    if any(one.time is None for one in given):
        return None
    ordered = sorted(given, key=lambda one: one.time.timestamp() if one.time else 0.0)
    last = [one for one in ordered if one.time == ordered[-1].time]
    return last[-1] if len({one.answer for one in last}) == 1 else None


def task(one: Interaction, signals: tuple[Signal, ...]) -> Task:
    """The prompt as a task, with the right answer where a signal has one."""
    assert one.prompt is not None
    given = _of("reference", signals)
    reference = latest(given) if given else None
    more = {} if reference is None else {"answer": reference.value}
    name = "prompt" if reference is None else f"reference {reference.name}"
    return Task(one.prompt, columns(one, name, more), one.origin)
