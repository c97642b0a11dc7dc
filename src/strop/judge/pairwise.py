"""Two answers compared in both orders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from strop.judge.asking.forms import FormName
from strop.judge.asking.judges import Judge, in_both_orders
from strop.judge.asking.question import Question, Ruling, added
from strop.judge.bias.position import PositionBias, consistent, position_bias
from strop.types import Usage

Disagreement = Literal["tie", "abstain"]
SUREST = 1e-6
"""Nobody is surer than by this."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A pair's verdict and both rulings it is made of: `Compared(question, verdict=1.0, straight,
    swapped)`; 1 for the first answer, 0 for the second, 0.5 for a tie, `None` for none."""

    question: Question
    verdict: float | None
    straight: Ruling
    swapped: Ruling


def compare(
    judge: Judge,
    questions: Sequence[Question],
    *,
    disagreement: Disagreement = "tie",
    form: FormName = "pairwise",
) -> list[Compared]:
    """Ask for every pair in its order and in the opposite one. Orders that disagree are a tie, or
    no verdict with `abstain`. Two answers of the same words are a tie that nobody is asked about.

    With another `form` the verdict is what the judge would make of the pair in it: a ranking of the
    two (in both orders, too), or which one has the higher score, or meets the criterion; each
    answer is then asked about by itself, and there is no order.
    """
    asked = [question for question in questions if question.answers[0] != question.answers[1]]
    if form in ("pairwise", "ranking"):
        straight, swapped = in_both_orders(judge, form, asked)
    else:
        straight = _by_each(judge, form, asked)
        swapped = [replace(ruling, usage=None) for ruling in straight]
    verdicts = consistent(
        [_first(ruling) for ruling in straight],
        [_first(ruling) for ruling in swapped],
        otherwise=0.5 if disagreement == "tie" else None,
    )
    found = iter(zip(verdicts, straight, swapped, strict=True))
    same = Ruling((0.5, 0.5), problem="the answers are the same")
    return [
        Compared(question, 0.5, same, same)
        if question.answers[0] == question.answers[1]
        else Compared(question, *next(found))
        for question in questions
    ]


def _by_each(judge: Judge, form: FormName, questions: Sequence[Question]) -> list[Ruling]:
    """Rulings on pairs from what each answer is worth by itself."""
    alone = [
        Question(f"{question.item} {letter}", question.prompt, (answer,), question.criterion)
        for question in questions
        for letter, answer in zip("AB", question.answers, strict=True)
    ]
    said = judge.rule(form, alone)
    found = []
    for one, other in zip(said[::2], said[1::2], strict=True):
        usage = added(one.usage, other.usage)
        words = "\n---\n".join((one.said, other.said))
        if one.values is None or other.values is None:
            problem = one.problem or other.problem
            found.append(Ruling(None, said=words, problem=problem, usage=usage))
            continue
        mine, yours = one.values[0], other.values[0]
        won = 0.5 if mine == yours else float(mine > yours)
        found.append(Ruling((won, 1 - won), said=words, usage=usage))
    return found


def bias_of(compared: Sequence[Compared]) -> PositionBias:
    """The position bias of the judge that compared these. Raises `ValueError` where no pair has a
    verdict in both orders."""
    asked = [one for one in compared if one.question.answers[0] != one.question.answers[1]]
    return position_bias(
        [_first(one.straight) for one in asked], [_first(one.swapped) for one in asked]
    )


def cost_of(compared: Sequence[Compared]) -> Usage | None:
    """The tokens that all verdicts took, as far as the judge's engine counts them."""
    return added(*(r.usage for one in compared for r in (one.straight, one.swapped)))


def confidence_of(one: Compared) -> float | None:
    """The mean confidence of both orders; `None` where the judge does not give both."""
    given = [one.straight.confidence, one.swapped.confidence]
    known = [value for value in given if value is not None]
    return sum(known) / 2 if len(known) == 2 else None


def log_odds_of(one: Compared) -> float | None:
    """The judge's log-odds that the first answer wins, mean of both orders; `None` where it does
    not say how sure it is."""
    found = []
    for ruling in (one.straight, one.swapped):
        if ruling.values is None or ruling.confidence is None:
            return None
        sure = min(max(ruling.confidence, SUREST), 1 - SUREST)
        side = 2 * (_first(ruling) or 0.0) - 1
        found.append(side * math.log(sure / (1 - sure)))
    return sum(found) / 2


def _first(ruling: Ruling) -> float | None:
    """1 where the first answer is worth more, 0 where it is worth less, 0.5 where they are equal:
    an averaged ranking is a verdict, too."""
    if ruling.values is None:
        return None
    one, other = ruling.values
    return 0.5 if one == other else float(one > other)
