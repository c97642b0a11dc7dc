"""Answers that nobody said anything about -> pairs, by a judge whose errors are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from strop.curate.signals.compare import Held, Pair
from strop.errors import DataError
from strop.files import digest64, sha256_hex
from strop.judge.asking.question import Question
from strop.judge.build import TrustedJudge
from strop.judge.pairwise import Compared, compare, confidence_of
from strop.text.parse import spoken
from strop.types import Task

VERIFY = "verify"
"""The file of pairs that a person is to look at."""
TO_VERIFY = 50


@dataclass(slots=True)
class JudgedPairs:
    """What a judge made of the answers to prompts that have no signal.

    `pairs` are those that are kept; `reasons` says of the others' interactions why not, `told` how
    many pairs came to which end: `{"kept": 210, "judge_unsure": 70, "judge_disagrees": 64,
    "judge_missing": 3}`. `to_verify` are drawn from those that are kept, for a person to judge
    without seeing what the judge said.
    """

    pairs: list[Pair] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    told: Counter[str] = field(default_factory=Counter)
    to_verify: list[Task] = field(default_factory=list)


def judged(groups: Sequence[Sequence[Held]], trusted: TrustedJudge) -> JudgedPairs:
    """Compare the answers of each group two by two, every answer once at most.

    A pair is kept where the judge says the same in both orders, and is at least as sure as its card
    asks for; a judge that gives no confidences is taken at its word where both orders agree. Which
    answers meet is a hash of their words. Raises `DataError` where the card says that no
    confidence is enough.
    """
    sure = surest(trusted.card)
    found = JudgedPairs()
    matched = [match for held in groups for match in _matches(held, found)]
    questions = [_question(one, other) for one, other in matched]
    verdicts = compare(trusted.judge, questions, disagreement="abstain")
    kept: list[tuple[Pair, Compared]] = []
    for match, verdict in zip(matched, verdicts, strict=True):
        why = _why_not(verdict, sure)
        found.told[why or "kept"] += 1
        if why is None:
            chosen, rejected = match if verdict.verdict == 1.0 else match[::-1]
            confidence = confidence_of(verdict)
            more = {} if confidence is None else {"confidence": confidence}
            kept.append(((chosen, rejected, more, "judge"), verdict))
        else:
            for one in match:
                found.reasons.setdefault(one.place, why)
    found.pairs = [pair for pair, _ in kept]
    drawn = sorted(kept, key=lambda one: digest64(f"verify {one[1].question.item}"))[:TO_VERIFY]
    found.to_verify = [_to_verify(*one) for one in drawn]
    return found


def asked_about(groups: Sequence[Sequence[Held]]) -> int:
    """How many pairs `judged` would ask about, each in both orders."""
    return sum(1 for held in groups for _ in _matches(held, JudgedPairs()))


def _matches(held: Sequence[Held], found: JudgedPairs) -> list[tuple[Held, Held]]:
    """Two by two, by the words that the judge is shown: answers of the same words stand for one
    another, and one without any (a call alone, an open thought) is left out."""
    distinct: dict[str, Held] = {}
    for one in held:
        words = " ".join(spoken(one.answer).split())
        if not words:
            found.reasons.setdefault(one.place, "nothing_said")
        elif distinct.setdefault(words, one) is not one:
            found.reasons.setdefault(one.place, "same_answer")
    order = sorted(distinct, key=lambda words: digest64(f"match {words}"))
    if len(order) % 2:
        alone = distinct[order.pop()]
        found.reasons.setdefault(alone.place, "one_answer")
    return [(distinct[a], distinct[b]) for a, b in zip(order[::2], order[1::2], strict=True)]


def _question(one: Held, other: Held) -> Question:
    prompt = one.interaction.prompt
    assert prompt is not None
    answers = (spoken(one.answer), spoken(other.answer))
    return Question(sha256_hex(f"{prompt} {answers}", 16), prompt, answers)


def surest(card: Mapping[str, Any] | None) -> float | None:
    """The confidence from which a pair is kept; `None` for a judge that gives none. Raises
    `DataError` for a card that names none."""
    if card is None or card["reliability"] is None:
        return None
    if card["threshold"] is None:
        raise DataError(
            "at no confidence do this judge's verdicts agree with people often enough",
            where="the judge's card", fix="use another judge, or calibrate it on more pairs",
        )  # fmt: skip
    return float(card["threshold"]["confidence"])


def _why_not(verdict: Compared, sure: float | None) -> str | None:
    if verdict.straight.values is None or verdict.swapped.values is None:
        return "judge_missing"
    if verdict.verdict not in (0.0, 1.0):
        return "judge_disagrees"
    confidence = confidence_of(verdict)
    if sure is not None and (confidence is None or confidence < sure):
        return "judge_unsure"
    return None


def _to_verify(pair: Pair, verdict: Compared) -> Task:
    """A row for `strop judge label`; what the judge said stands in columns that the page does not
    show."""
    question = verdict.question
    columns = {
        "id": question.item, "answers": list(question.answers), "human": None,
        "judge": "A" if verdict.verdict == 1.0 else "B", **pair[2],
    }  # fmt: skip
    return Task(question.prompt, columns, pair[0].interaction.origin)
