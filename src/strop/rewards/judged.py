"""Rewards that a judge gives: against another answer, by a score, by a rank, by a rubric."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby

from strop.errors import RewardError
from strop.files import SHORT, sha256_hex
from strop.judge.asking.forms import FormName
from strop.judge.asking.judges import Judge
from strop.judge.asking.question import Question
from strop.judge.bias.sway import Sway, chance_at_no_bias, differences
from strop.judge.build import TrustedJudge, trusted_judge
from strop.judge.pairwise import Compared, compare, log_odds_of
from strop.judge.ranking import rank
from strop.judge.rubric import Aggregation, grade
from strop.recipe.rubric import Rubric, read_rubric
from strop.recipe.train.reward import RewardComponent
from strop.rewards.own.functions import FunctionOutput
from strop.text.parse import spoken
from strop.types import Text

Scores = list[float | None]


def judge_win(
    judge: Judge,
    known: Mapping[str, Sway],
    /,
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    baseline: Sequence[str],
    criterion: str = "",
    at_no_bias: bool = False,
    **columns: object,
) -> Scores:
    """1 where the judge prefers the completion to the task's `baseline` answer in both orders, 0
    where it prefers the baseline, 0.5 for a tie or orders that disagree.

    With `at_no_bias` it is the judge's chance that the completion wins, less what is `known` to
    sway it (length, formatting). Raises `RewardError` for a judge that does not say how sure it is.
    """
    questions = [
        Question(_item(prompt, said, other), prompt, (spoken(said), other), criterion)
        for prompt, said, other in zip(prompts, completions, baseline, strict=True)
    ]
    compared = compare(judge, questions)
    if at_no_bias:
        return [_at_no_bias(one, known) for one in compared]
    return [one.verdict for one in compared]


def _at_no_bias(one: Compared, known: Mapping[str, Sway]) -> float | None:
    answers = one.question.answers
    if answers[0] == answers[1]:
        return 0.5
    if one.straight.values is None or one.swapped.values is None:
        return None
    odds = log_odds_of(one)
    if odds is None:
        raise RewardError("the judge does not say how sure it is, so no bias can be taken out",
                          fix="ask it by likelihood, or drop at_no_bias")  # fmt: skip
    return chance_at_no_bias(odds, differences(answers), known)


def judge_score(
    judge: Judge,
    /,
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
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
    judge: Judge,
    /,
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
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
    judge: Judge,
    rubric: Rubric,
    /,
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    implicit: bool = False,
    **columns: object,
) -> FunctionOutput:
    """The share of the rubric's points, from 0 to 1, and what was met of its criteria; with
    `implicit` the judge's one score for all criteria at once."""
    answers = [(prompt, spoken(said)) for prompt, said in zip(prompts, completions, strict=True)]
    how: Aggregation = "implicit" if implicit else "explicit"
    grades = grade(judge, rubric, answers, aggregation=how)
    names = [] if implicit else [one.name for one in rubric.criteria]
    parts = {name: [one.criteria[name] for one in grades] for name in names}
    return FunctionOutput([one.score for one in grades], [], parts)


JUDGED: Mapping[str, Callable[..., Scores | FunctionOutput]] = {
    "judge_win": judge_win,
    "judge_score": judge_score,
    "judge_rank": judge_rank,
    "rubric": rubric,
}
"""Rewards that need a judge; all from 0 to 1. What is theirs alone comes first and by position, so
that columns of the tasks may have any name."""


ASKED: Mapping[str, FormName] = {
    "judge_win": "pairwise", "judge_score": "score", "judge_rank": "ranking", "rubric": "criterion",
}  # fmt: skip
"""The form in which each of them asks; an implicit rubric asks for a score."""


def judged_function(component: RewardComponent) -> Callable[..., Scores | FunctionOutput]:
    """The component's function with its judge.

    Raises `RecipeError` for a judge that is not to be trusted, and `RewardError` for an option that
    the function does not have.
    """
    function, options = JUDGED[component.function], component.options
    known = [name for name, one in inspect.signature(function).parameters.items()
             if one.kind is one.KEYWORD_ONLY and one.default is not one.empty]  # fmt: skip
    odd = next((name for name in options if name not in known), None)
    if odd is not None:
        raise RewardError(f"{component.function} has no option {odd!r}",
                          fix=f"it has {', '.join(known)}")  # fmt: skip
    form = "score" if options.get("implicit") else ASKED[component.function]
    trusted = trusted_judge(str(component.judge), form)
    if component.rubric is not None:
        return partial(function, trusted.judge, read_rubric(component.rubric))
    if function is not judge_win:
        return partial(function, trusted.judge)
    return partial(judge_win, trusted.judge, _known(component, trusted))


def _known(component: RewardComponent, trusted: TrustedJudge) -> dict[str, Sway]:
    """What is to be taken out of the judge's verdicts: what its card says of its biases, if the
    component asks for that."""
    if not component.options.get("at_no_bias"):
        return {}
    problem = ""
    if trusted.card is None:
        problem = "at_no_bias takes what the judge's card says of its biases"
    elif trusted.card["reliability"] is None:
        problem = "the judge does not say how sure it is, so no bias can be taken out"
    elif not all(sway["linear"] for sway in trusted.card["sways"].values()):
        problem = "the card's sways are of verdicts, not of log-odds"
    elif "length" not in trusted.card["sways"]:
        problem = "the card says nothing of length: hardly any of its pairs are about as long"
    if problem or trusted.card is None:
        raise RewardError(problem, where=str(component.judge),
                          fix="calibrate a judge that says how sure it is (by_likelihood, a reward "
                          "model), or drop at_no_bias")  # fmt: skip
    return {name: Sway(**one) for name, one in trusted.card["sways"].items()}


def _item(*parts: Text) -> str:
    return sha256_hex(json.dumps(parts, sort_keys=True, default=str), SHORT)
