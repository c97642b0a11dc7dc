"""Answers graded by a rubric.

Explicit: every criterion is asked about by itself, and the points of those that are met are added
up, as in HealthBench (Arora et al. 2025, arXiv 2505.08775). Implicit: the judge reads all criteria
at once and gives one score (Gunjal et al. 2025, arXiv 2507.17746).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from strop.judge.asking.judges import Judge
from strop.judge.asking.question import Question, Ruling
from strop.recipe.rubric import Rubric
from strop.types import Text

Aggregation = Literal["explicit", "implicit"]


@dataclass(frozen=True, slots=True)
class Grade:
    """`Grade(score=0.6, criteria={"names the dose": 1.0, "invents a study": 1.0}, problem="")`.

    `score` is from 0 to 1, `None` where a criterion has no verdict: what is not known is not 0.
    `criteria` are 1 where a criterion was met; they are empty for an implicit grade.
    """

    score: float | None
    criteria: Mapping[str, float | None]
    problem: str = ""


def grade(
    judge: Judge,
    rubric: Rubric,
    answers: Sequence[tuple[Text, str]],
    *,
    aggregation: Aggregation = "explicit",
) -> list[Grade]:
    """A grade for every (prompt, answer)."""
    if aggregation == "implicit":
        return _implicit(judge, rubric, answers)
    questions = [
        Question(f"{number} {one.name}", prompt, (answer,), one.text)
        for number, (prompt, answer) in enumerate(answers)
        for one in rubric.criteria
    ]
    rulings = judge.rule("criterion", questions)
    size = len(rubric.criteria)
    return [_added(rubric, rulings[first : first + size]) for first in range(0, len(rulings), size)]


def points(rubric: Rubric, met: Mapping[str, float]) -> float:
    """The share of the rubric's points, between 0 and 1: points lost below 0 do not count."""
    total = sum(one.points * met[one.name] for one in rubric.criteria)
    return min(1.0, max(0.0, total / rubric.most))


def listed(rubric: Rubric) -> str:
    """All criteria as one text, those that cost points marked."""
    return "\n".join(f"- {one.text} ({one.points:+g} points)" for one in rubric.criteria)


def _added(rubric: Rubric, rulings: Sequence[Ruling]) -> Grade:
    names = [one.name for one in rubric.criteria]
    values = [None if ruling.values is None else ruling.values[0] for ruling in rulings]
    criteria = dict(zip(names, values, strict=True))
    known = {name: value for name, value in criteria.items() if value is not None}
    if len(known) < len(names):
        problem = next(ruling.problem for ruling in rulings if ruling.values is None)
        return Grade(None, criteria, problem)
    return Grade(points(rubric, known), criteria)


def _implicit(judge: Judge, rubric: Rubric, answers: Sequence[tuple[Text, str]]) -> list[Grade]:
    words = f"\n{listed(rubric)}"
    questions = [
        Question(str(number), prompt, (answer,), words)
        for number, (prompt, answer) in enumerate(answers)
    ]
    return [
        Grade(None if ruling.values is None else ruling.values[0], {}, ruling.problem)
        for ruling in judge.rule("score", questions)
    ]
