"""The forms in which a judge can be asked: words, and how its verdict is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from strop.judge.asking.parse import criterion_verdict, pair_verdict, ranking_verdict, score_verdict
from strop.text.templates import PromptTemplate, read_template

FormName = Literal["pairwise", "score", "criterion", "ranking"]
FILES = Path(__file__).parent / "files"
LOW, HIGH = 0, 10
"""The scale of a score."""
LIKELY_HIGH = 9
"""Its end where it is read from likelihoods: a 10 begins with a 1."""
MOST_RANKED = 26
"""Answers have letters."""

SHOWN = ("mark", "prompt", "answers")
"""What every template has to show."""


@dataclass(frozen=True, slots=True)
class Form:
    """How many answers a question of this form has (`None`: two or more), what its template may
    show beside `SHOWN` and has to, and how the judge's words become one value for each answer.

    Where likelihoods are read in place of words, the judge's answer begins with `opened`, and the
    chances of the `options` to follow become the values by `weigh`.
    """

    answers: int | None
    given: tuple[str, ...]
    needed: tuple[str, ...]
    read: Callable[[str, int], tuple[float, ...] | None]
    opened: str
    options: tuple[str, ...]
    weigh: Callable[[Sequence[float]], tuple[float, ...]] | None


def _pair(said: str, answers: int) -> tuple[float, ...] | None:
    first = pair_verdict(said)
    return None if first is None else (first, 1 - first)


def _score(said: str, answers: int) -> tuple[float, ...] | None:
    score = score_verdict(said, LOW, HIGH)
    return None if score is None else (score,)


def _criterion(said: str, answers: int) -> tuple[float, ...] | None:
    met = criterion_verdict(said)
    return None if met is None else (met,)


def _likelier(chances: Sequence[float]) -> tuple[float, ...]:
    first, second = chances
    won = 0.5 if first == second else float(first > second)
    return (won, 1 - won)


def _expected(chances: Sequence[float]) -> tuple[float, ...]:
    """The mean of the scale under the chances of its numbers."""
    return (sum(n * chance for n, chance in enumerate(chances)) / (LIKELY_HIGH - LOW),)


FORMS: Mapping[FormName, Form] = {
    "pairwise": Form(
        2, ("criterion",), (), _pair, "Verdict:", (" A", " B"), _likelier
    ),
    "score": Form(
        1, ("criterion", "low", "high"), (), _score, "Score:",
        tuple(f" {n}" for n in range(LOW, LIKELY_HIGH + 1)), _expected,
    ),
    "criterion": Form(
        1, ("criterion",), ("criterion",), _criterion, "Met:", (" no", " yes"),
        lambda chances: (float(chances[1] > chances[0]),),
    ),
    "ranking": Form(
        None, ("criterion", "names"), (), lambda said, n: ranking_verdict(said, n), "", (), None
    ),
}  # fmt: skip


def form_template(name: FormName, own: str | None = None) -> PromptTemplate:
    """The words of a form: strop's own, or those of a user's file.

    Raises `RecipeError` for a file that does not fence the material, or shows what is not there.
    """
    form = FORMS[name]
    path = FILES / f"{name}.txt" if own is None else Path(own)
    given, needed = (*SHOWN, *form.given), (*SHOWN, *form.needed)
    return read_template(name, path, needed=needed, given=given)
