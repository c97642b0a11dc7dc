"""Several answers to one prompt, ranked, and the best one picked."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from strop.judge.asking.judges import Judge, in_both_orders
from strop.judge.asking.question import Question


def rank(judge: Judge, questions: Sequence[Question]) -> list[tuple[float, ...] | None]:
    """Worth of each answer from 0 to 1, the mean over its own order and the opposite one, so that a
    taste for the first place gives nobody an advantage; `None` unless both orders were ranked.

    Answers of the same words have the same worth: they are shown once, and share it.
    """
    distinct = [list(dict.fromkeys(question.answers)) for question in questions]
    asked = [
        Question(question.item, question.prompt, tuple(answers), question.criterion)
        for question, answers in zip(questions, distinct, strict=True)
        if len(answers) > 1
    ]
    found = iter(zip(*in_both_orders(judge, "ranking", asked), strict=True))
    worths: list[tuple[float, ...] | None] = []
    for question, answers in zip(questions, distinct, strict=True):
        if len(answers) == 1:
            worths.append((0.5,) * len(question.answers))
            continue
        one, other = next(found)
        if one.values is None or other.values is None:
            worths.append(None)
            continue
        means = [fmean(pair) for pair in zip(one.values, other.values, strict=True)]
        of = dict(zip(answers, means, strict=True))
        worths.append(tuple(of[answer] for answer in question.answers))
    return worths


def pick(worths: Sequence[float]) -> int:
    """The number of the best answer, the first of equals."""
    return max(range(len(worths)), key=lambda n: worths[n])
