"""Rewards that a judge gives: against another answer, by a score, by a rank, by a rubric."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby

from strop.files import SHORT, sha256_hex
from strop.judge.build import trusted_judge
from strop.judge.judges import Judge
from strop.judge.pairwise import compare
from strop.judge.question import Question
from strop.judge.ranking import rank
from strop.judge.rubric import Aggregation, grade
from strop.recipe.rubric import Rubric, read_rubric
from strop.recipe.train.reward import RewardComponent
from strop.text.parse import spoken
from strop.types import Text

Scores = list[float | None]


def judge_win(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    judge: Judge,
    baseline: Sequence[str],
    criterion: str = "",
    **columns: object,
) -> Scores:
    """1 where the judge prefers the completion to the task's `baseline` answer in both orders, 0
    where it prefers the baseline, 0.5 for a tie or orders that disagree."""
    questions = [
        Question(_item(prompt, said, other), prompt, (spoken(said), other), criterion)
        for prompt, said, other in zip(prompts, completions, baseline, strict=True)
    ]
    return [one.verdict for one in compare(judge, questions)]


def judge_score(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    judge: Judge,
    criterion: str = "",
    **columns: object,
) -> Scores:
    """The judge's score of the completion, from 0 to 1 of its scale."""
    questions = [
        Question(_item(prompt, said), prompt, (spoken(said),), criterion)
        for prompt, said in zip(prompts, completions, strict=True)
    ]
    rulings = judge.rule("score", questions)
    return [None if ruling.values is None else ruling.values[0] for ruling in rulings]


def judge_rank(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    judge: Judge,
    criterion: str = "",
    **columns: object,
) -> Scores:
    """The completion's place among those of its prompt, from 1 (best) to 0, mean of two orders.

    A prompt with one completion has no ranking, and no score.
    """
    groups = [list(group) for _, group in groupby(range(len(prompts)), lambda n: prompts[n])]
    asked = [group for group in groups if len(group) > 1]
    questions = [
        Question(
            _item(prompts[group[0]], *(completions[n] for n in group)), prompts[group[0]],
            tuple(spoken(completions[n]) for n in group), criterion,
        )
        for group in asked
    ]  # fmt: skip
    found: Scores = [None] * len(prompts)
    for group, worths in zip(asked, rank(judge, questions), strict=True):
        for n, worth in zip(group, worths or [None] * len(group), strict=True):
            found[n] = worth
    return found


def rubric(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    judge: Judge,
    rubric: Rubric,
    implicit: bool = False,
    **columns: object,
) -> Scores:
    """The share of the rubric's points, from 0 to 1; with `implicit` the judge's one score for all
    criteria at once."""
    answers = [(prompt, spoken(said)) for prompt, said in zip(prompts, completions, strict=True)]
    how: Aggregation = "implicit" if implicit else "explicit"
    return [one.score for one in grade(judge, rubric, answers, aggregation=how)]


JUDGED: Mapping[str, Callable[..., Scores]] = {
    "judge_win": judge_win,
    "judge_score": judge_score,
    "judge_rank": judge_rank,
    "rubric": rubric,
}
"""Rewards that need a judge; all from 0 to 1."""


def judged_function(component: RewardComponent) -> Callable[..., Scores]:
    """The component's function with its judge.

    Raises `RecipeError` for a judge that is not to be trusted.
    """
    judge = trusted_judge(str(component.judge)).judge
    given = {} if component.rubric is None else {"rubric": read_rubric(component.rubric)}
    return partial(JUDGED[component.function], judge=judge, **given)


def _item(*parts: Text) -> str:
    return sha256_hex(json.dumps(parts, sort_keys=True, default=str), SHORT)
