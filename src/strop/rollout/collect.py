"""Tasks -> scored groups: sample completions, score them, collect the failures of rewards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from strop.distributed.deal import share_of
from strop.distributed.world import ALONE, World
from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, RolloutEngine, Sampling, in_groups, requests_of
from strop.episodes import Episode
from strop.errors import UnscoredError
from strop.rewards.compose import OPTIONAL, shares_scored
from strop.rollout.group import rollout_of
from strop.tracking.phases import phase
from strop.types import FAILED, Failure, Judged, Rollout, ScoredGroup


@dataclass(frozen=True, slots=True)
class Collected:
    """The groups of one step and the rewards that failed while scoring them."""

    groups: tuple[ScoredGroup, ...]
    failures: tuple[Failure, ...]


def collect(
    tasks: Sequence[PromptedTask],
    engine: RolloutEngine,
    judge: Callable[[Sequence[Rollout]], Judged],
    *,
    group_size: int,
    sampling: Sampling,
    key: DrawKey,
    world: World = ALONE,
) -> Collected:
    """`group_size` scored completions per task; `key` is the draw key without prompt and index.
    Every data rank of `world` samples and scores a part, and all get the whole.

    Raises `UnscoredError` if no completion could be scored, and `UsageError` if the engine returns
    no tokens or no log-probs.
    """
    with phase("sampling"):
        own = share_of(len(tasks), world.data_rank, world.data_size)
        requests = requests_of(tasks, sampling, key, group_size)
        asked = requests[own.start * group_size : own.stop * group_size]
        sampled = in_groups(engine.generate(asked), group_size)
    rollouts = [
        rollout_of(prompt, answers)
        for prompt, answers in zip(tasks[own.start : own.stop], sampled, strict=True)
    ]
    if not world.leads:
        rollouts = []  # the first process of its group scores the same answers
    with phase("reward"):
        judged = judge(rollouts) if rollouts else Judged((), ())
    groups = tuple(
        ScoredGroup(rollout, judged.scores[i * group_size : (i + 1) * group_size])
        for i, rollout in enumerate(rollouts)
    )
    parts = world.by_data_rank(Collected(groups, judged.failures))
    whole = Collected(
        tuple(group for part in parts for group in part.groups),
        tuple(failure for part in parts for failure in part.failures),
    )
    expect_some_scored(whole.groups, whole.failures)
    return whole


def expect_some_scored(groups: Sequence[ScoredGroup], failures: Sequence[Failure]) -> None:
    """Raise `UnscoredError` if no completion has a score."""
    scores = [score for group in groups for score in group.scores]
    if any(score.total is not None for score in scores):
        return
    answers = [answer for group in groups for answer in group.rollout.completions]
    if any(isinstance(one, Episode) for one in answers) and all(
        one.finish in FAILED for one in answers
    ):
        raise UnscoredError(
            f"all {len(answers)} episodes failed by their environment's fault, which the warnings "
            "name",
            fix="mend the environment, or what it needs, and resume the run",
        )
    shares = shares_scored(scores)
    if shares and not failures:
        raise UnscoredError(
            f"none of {len(scores)} completions is scored by every reward: {shares}",
            fix=OPTIONAL,
        )
    raise UnscoredError(
        f"none of {len(scores)} completions could be scored: {_reasons(failures)}",
        fix="run the reward function on one completion by hand and mend it",
    )


def carries_no_gradient(group: ScoredGroup) -> bool:
    """Whether all scored completions of the group got the same reward."""
    totals = {score.total for score in group.scores if score.total is not None}
    return len(totals) < 2


def _reasons(failures: Sequence[Failure]) -> str:
    return (
        "; ".join(f"{f.component}: {f.error}" for f in failures)
        or "every reward returned None, or no finite number"
    )
