"""Grades a study's answers: which are right, what they vote for, how a reward ranks them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from strop.errors import UnscoredError
from strop.evals.decode.draws import Draws, Side
from strop.recipe.study import Study, Voting
from strop.rewards.answer.read import final_answer
from strop.rewards.compose import Reward
from strop.rewards.exact import same_answer
from strop.text.parse import spoken
from strop.types import Completion, Judged, Rollout, Score


@dataclass(frozen=True, slots=True)
class GradedAnswer:
    """One answer, judged.

    `GradedAnswer(Completion(...), {"exact_answer": 1.0}, right=True, vote="3", reward=0.7)`;
    `right` is `None` where it could not be judged, `vote` where it could not be read.
    """

    completion: Completion
    scores: Mapping[str, float | None]
    right: bool | None
    vote: str | None
    reward: float | None


@dataclass(frozen=True, slots=True)
class Graded:
    """`Draws` after judging: `rounds[r][item]` are the answers of an item."""

    side: Side
    temperature: float
    rounds: tuple[list[list[GradedAnswer]], ...]

    def answers(self) -> Iterator[tuple[int, int, int, GradedAnswer]]:
        """(round, item, sample, answer), in that order."""
        for r, items in enumerate(self.rounds):
            for i, answers in enumerate(items):
                for sample, answer in enumerate(answers):
                    yield r, i, sample, answer


class Grader:
    """The rewards of a study. Raises here for a misspelt one, before any model is loaded."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.scores = Reward(study.scores)
        self.picker = Reward(study.best_of.reward) if study.best_of else None

    def grade(self, draws: Draws) -> Graded:
        """Raises `UnscoredError` if no answer could be judged, or none could be ranked for
        best-of."""
        picking = self.picker if draws.temperature > 0 else None
        rounds = [
            self._judged(rollouts, picking if number == 0 else None)
            for number, rollouts in enumerate(draws.rounds)
        ]
        return Graded(draws.side, draws.temperature, tuple(rounds))

    def _judged(self, rollouts: list[Rollout], picker: Reward | None) -> list[list[GradedAnswer]]:
        label = self.study.scores[0].label
        judged = self.scores.judge_rollouts(rollouts)
        _expect_some(judged, [score.components[label] for score in judged.scores], label)
        rewards: list[float | None] = [None] * len(judged.scores)
        if picker is not None:
            picked = picker.judge_rollouts(rollouts)
            rewards = [score.total for score in picked.scores]
            _expect_some(picked, rewards, "best_of")
        made: list[list[GradedAnswer]] = []
        scored = zip(judged.scores, rewards, strict=True)
        for rollout in rollouts:
            votes = self._votes(rollout.completions)
            made.append([
                GradedAnswer(completion, score.components, self._right(score), vote, reward)
                for completion, vote, (score, reward) in zip(
                    rollout.completions, votes, scored, strict=False
                )
            ])  # fmt: skip
        return made

    def _right(self, score: Score) -> bool | None:
        value = score.components[self.study.scores[0].label]
        return None if value is None else value >= self.study.right

    def _votes(self, completions: Sequence[Completion]) -> list[str | None]:
        if self.study.voting is None:
            return [None] * len(completions)
        tag = str(self.study.scores[0].options.get("tag", "answer"))
        return votes_of([spoken(c.said) for c in completions], self.study.voting, tag)


def votes_of(texts: Sequence[str], voting: Voting, tag: str) -> list[str | None]:
    """What each of an item's answers votes for; equal answers vote for the first of them.

    `votes_of(["so 1,000", "<answer>1e3</answer>", "hm"], "answer", "answer")` is
    `["1,000", "1,000", None]`. Equality is `exact_answer`'s, so that what is one answer to the
    grader is one answer to the vote.
    """
    votes: list[str | None] = []
    for text in texts:
        said = final_answer(text, tag) if voting == "answer" else text
        # an empty answer does not even equal itself
        readable = said is not None and same_answer(said, said)
        known = (vote for vote in votes if vote is not None and same_answer(str(said), vote))
        votes.append(next(known, said) if readable else None)
    return votes


def judged_items(graded: Sequence[Graded]) -> list[int]:
    """Items all of whose answers could be judged, on both sides.

    Raises `UnscoredError` if fewer than two are left, which is too few to measure.
    """
    unjudged = {i for part in graded for _, i, _, answer in part.answers() if answer.right is None}
    items = [i for i in range(len(graded[0].rounds[0])) if i not in unjudged]
    if len(items) < 2:
        raise UnscoredError(
            f"{len(items)} items have all their answers judged; two are the least to measure with",
            fix="call the reward on one completion by hand and mend it, or add items to `data`",
        )
    return items


def _expect_some(judged: Judged, values: Sequence[float | None], name: str) -> None:
    if all(value is None for value in values):
        reasons = "; ".join(f"{f.component}: {f.error}" for f in judged.failures)
        raise UnscoredError(
            f"{name}: no answer could be scored: {reasons or 'the reward returned None for all'}",
            fix="call the reward on one completion by hand and mend it",
        )
