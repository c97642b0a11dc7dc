"""Training on the model's own samples: sample, score, update.

A step samples a group per prompt, scores it and hands the scored groups to a learner: a policy
gradient, pairs of the best and the worst, or maximum likelihood on the best.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch

from strop.data.order import DataMixture, DrawnRecords
from strop.distributed.deal import dealt, share_of
from strop.distributed.world import ALONE, World
from strop.engines.engine import PromptedTask
from strop.episodes import asked_of, said_by_policy
from strop.errors import NotFiniteError
from strop.losses.metrics import Metric, merge, results
from strop.model.reference import Reference
from strop.recipe.train.methods import Online
from strop.recipe.train.online import TasksDuring
from strop.recipe.train.reward import RewardComponent
from strop.rewards.audit.dominance import dominance
from strop.rewards.audit.symptoms import habits_of, symptoms
from strop.rewards.compose import Reward
from strop.rollout.collect import carries_no_gradient
from strop.rollout.episode_metrics import episode_metrics
from strop.rollout.overlong import NAME as OVERLONG
from strop.rollout.source import RolloutSource, StepRollouts
from strop.tracking.phases import phase
from strop.train.loop.describe import judged, sample_rows, shape_of_groups, shape_of_tasks
from strop.train.loop.memory import explained, to_learn, to_sample
from strop.train.loop.offline import Replay, with_replay
from strop.train.loop.optim import learning_rate
from strop.train.loop.parity import Parity
from strop.train.loop.signals import interruptible
from strop.train.loop.state import TrainState
from strop.train.loop.unscored import expect_scored, unscored_metrics
from strop.train.loop.updater import Update, Updater, made_since, skipped_row
from strop.types import NotFinite, Score, ScoredGroup, StepRecord


class Learner(Protocol):
    """Makes updates from a step's scored groups; `compares_groups` says whether a group whose
    rewards are all equal gives no gradient."""

    compares_groups: bool

    def updates(self, parts: Sequence[Sequence[ScoredGroup]]) -> Iterator[Update]:
        """The updates to make with these groups, this process's of each mini-batch; the next one is
        computed after the last one was made."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Tasks evaluated during training, and the reward that scores their answers."""

    recipe: TasksDuring
    tasks: Sequence[PromptedTask]
    reward: Reward


@dataclass(frozen=True, slots=True)
class OnlineParts:
    """What an online run works with; while answers are asked for, it is within `sampling`."""

    source: RolloutSource
    mixture: DataMixture
    total: int
    learner: Learner
    reference: Reference | None
    replay: Replay | None
    held_out: HeldOut | None
    parity: Parity
    world: World = ALONE
    sampling: Callable[[], AbstractContextManager[None]] = nullcontext


def train_online(state: TrainState, recipe: Online, parts: OnlineParts) -> Iterator[StepRecord]:
    """Run from `state.step` to the end, one record a step; the caller logs and checkpoints."""
    updater = Updater(state, recipe.optim.max_grad_norm, parts.world)
    while state.step < parts.total:
        started = time.perf_counter()
        where = f"step {state.step + 1}"
        with phase("data"):
            position = state.draw_at(parts.total)
            drawn = parts.mixture.draw(position)
        shape = partial(_sampled_shape, recipe, parts.source, position)
        with (
            interruptible(),
            explained(where, shape, to_sample(recipe)),
            parts.sampling(),
        ):
            gathered = parts.source.next(state.step, position)
        sampled = time.perf_counter()
        expect_scored(recipe.reward, gathered.sampled, gathered.failures, state.unscored, where)
        row = rollout_metrics(gathered, parts.learner.compares_groups)
        row |= unscored_metrics(recipe.reward, gathered.sampled, gathered.failures)
        row |= {**episode_metrics(gathered.sampled), **gathered.metrics}
        learnt, not_finite = _learn(updater, recipe, parts, gathered, drawn)
        row |= learnt
        refresh = recipe.refresh_every
        if parts.reference is not None and refresh and state.step % refresh == 0:
            parts.reference.refresh()
        row |= dominance_metrics(recipe, gathered.sampled)
        habits = [habits_of(group) for group in gathered.sampled]
        row |= symptoms(recipe.reward, gathered.sampled, habits)
        row["epoch"] = state.step / parts.mixture.epoch_steps()
        row["sampling_time"] = sampled - started
        row["step_time"] = time.perf_counter() - started
        if recipe.rollout.parity_every and state.step % recipe.rollout.parity_every == 0:
            with phase("evaluation"), parts.sampling():
                row |= parts.parity.measured(state.step).metrics()
        if parts.held_out is not None:
            every = parts.held_out.recipe.every
            if state.step % every == 0 or state.step == parts.total:
                with phase("evaluation"), parts.sampling():
                    row |= evaluate(parts.source, parts.held_out)
        samples = [*_samples(gathered.groups[0]), *_habit_samples(gathered.sampled, habits)]
        yield StepRecord(state.step, parts.total, row, samples, not_finite)


def _learn(
    updater: Updater,
    recipe: Online,
    parts: OnlineParts,
    gathered: StepRollouts,
    drawn: DrawnRecords,
) -> tuple[dict[str, float], NotFinite | None]:
    """Train on these groups: the learner's metrics, or why an update was left out."""
    state = updater.state
    where = f"step {state.step + 1}"
    rate = learning_rate(recipe.optim, state.step, parts.total)
    metrics: dict[str, Metric] = {}
    not_finite = None
    before = state.updates()
    try:
        with explained(where, partial(shape_of_groups, gathered.groups), to_learn(recipe)):
            own = own_groups(gathered.groups, recipe.mini_batches, parts)
            for update in parts.learner.updates(own):
                if update.of == "policy":
                    update = with_replay(update, parts.replay, drawn, parts.world)
                metrics = merge(metrics, updater.step(update, learning_rate=rate, where=where))
            row = results(metrics)
    except NotFiniteError as error:
        count, made = made_since(state, before)
        row = skipped_row(rate, count)
        not_finite = NotFinite(error.tensors, tuple(sample_rows(gathered.groups)), made)
    state.step += 1
    return row, not_finite


def own_groups(
    groups: Sequence[ScoredGroup], mini_batches: int, run: OnlineParts
) -> list[list[ScoredGroup]]:
    """The groups of each mini-batch (of nearly equal size, in order) that this process learns
    from; all processes have about as many tokens to read."""
    parts = []
    for number in range(mini_batches):
        held = share_of(len(groups), number, mini_batches)
        mini = groups[held.start : held.stop]
        sizes = [tokens_of(group, run.learner.compares_groups) for group in mini]
        own = dealt(sizes, run.world.data_size)[run.world.data_rank]
        parts.append([mini[i] for i in own])
    return parts


def tokens_of(group: ScoredGroup, compares_groups: bool) -> int:
    """Tokens that a forward of this group reads; none where it carries no gradient."""
    if compares_groups and carries_no_gradient(group):
        return 0
    rollout = group.rollout
    return len(rollout.prompt_ids) + sum(len(c.ids) for c in rollout.completions)


def _sampled_shape(recipe: Online, source: RolloutSource, position: int) -> str:
    tasks = source.tasks(position)
    return shape_of_tasks(tasks, recipe.rollout.group_size, recipe.rollout.max_tokens)


def evaluate(source: RolloutSource, held_out: HeldOut) -> dict[str, float]:
    """Rewards of answers to held-out tasks, names prefixed `eval_`; the same draws every time."""
    wanted = held_out.recipe
    collected = source.held_out(
        held_out.tasks, held_out.reward, samples=wanted.samples, temperature=wanted.temperature
    )
    return {f"eval_{name}": value for name, value in score_metrics(collected.groups).items()}


def rollout_metrics(gathered: StepRollouts, compares_groups: bool) -> dict[str, float]:
    """Metrics over all samples of the step, under TRL's names.

    `entropy` is the mean of -log p over all sampled tokens. Skipped groups count as well, so that a
    collapsing policy shows in it.
    """
    groups = gathered.sampled
    row = {**score_metrics(groups), "sampled/rounds": gathered.rounds}
    said = [x for group in groups for c in group.rollout.completions for x in c.sampler_logprobs()]
    row["entropy"] = -sum(said) / len(said)
    if compares_groups:
        same = sum(carries_no_gradient(group) for group in groups)
        row["frac_reward_zero_std"] = same / len(groups)
    return row


def dominance_metrics(recipe: Online, groups: Sequence[ScoredGroup]) -> dict[str, float]:
    """What drives this step's advantages: `dominance/<component>` shares that add to 1, and how
    many pairs the total ranks against the first component. Empty for a single component."""
    components = list(recipe.reward)
    if recipe.rollout.overlong_buffer:
        components.append(RewardComponent(function=OVERLONG))
    if len(components) <= 1:
        return {}
    found = dominance(components, [[s.components for s in group.scores] for group in groups])
    row = {f"dominance/{label}": share for label, share in found.shares.items()}
    if found.shares:
        row["dominance/others"] = 1.0 - found.shares[components[0].label]
    if found.inversions is not None:
        row["dominance/inversions"] = found.inversions
    return row


def score_metrics(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    """Rewards and lengths of scored groups."""
    scores = [score for group in groups for score in group.scores]
    completions = [c for group in groups for c in group.rollout.completions]
    totals = [score.total for score in scores if score.total is not None]
    rewards = torch.tensor(totals)
    lengths = torch.tensor([said_by_policy(c) for c in completions], dtype=torch.float32)
    cut = sum(c.finish == "length" for c in completions)
    rewarded = {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std(correction=0)),
        "reward_min": float(rewards.min()),
        "reward_max": float(rewards.max()),
    }
    row = {
        **(rewarded if scores[0].components else {}),  # a teacher alone gives no reward
        "skipped/unscored": len(scores) - len(totals),
        "completions/count": len(completions),
        "completions/mean_length": float(lengths.mean()),
        "completions/max_length": float(lengths.max()),
        "completions/mean_length_below": _mean_length_below(scores, lengths),
        "completions/clipped_ratio": cut / len(completions),
        "num_tokens": float(sum(len(c.ids) for c in completions)),
    }
    for name in scores[0].components:
        values = [v for s in scores if (v := s.components[name]) is not None]
        if values:
            row[f"rewards/{name}/mean"] = sum(values) / len(values)
    return row


def _mean_length_below(scores: Sequence[Score], lengths: torch.Tensor) -> float:
    """Mean length of the answers whose reward is below the mean (0 if there are none): a drift
    towards long wrong answers shows here first."""
    totals = torch.tensor([float("nan") if s.total is None else s.total for s in scores])
    below = totals < totals.nanmean() - 1e-9
    return float(lengths[below].mean()) if below.any() else 0.0


def _samples(group: ScoredGroup) -> list[dict[str, Any]]:
    """The best and the worst scored completion of a group."""
    totals = [(score.total, -n) for n, score in enumerate(group.scores) if score.total is not None]
    ranked = [-place for _, place in sorted(totals, reverse=True)]
    shown = ranked if len(ranked) < 2 else [ranked[0], ranked[-1]]
    return [_sample(group, number) for number in shown]


def _sample(group: ScoredGroup, number: int) -> dict[str, Any]:
    score, completion = group.scores[number], group.rollout.completions[number]
    return {
        "prompt": asked_of(group.rollout.task, completion),
        "completion": completion.said,
        **judged(score),
    }


def _habit_samples(
    groups: Sequence[ScoredGroup], habits: Sequence[Sequence[Sequence[str]]]
) -> list[dict[str, Any]]:
    """For each habit seen in this step's completions, the completion with the highest reward."""
    best: dict[str, tuple[float, dict[str, Any]]] = {}
    for group, shown in zip(groups, habits, strict=True):
        for number, names in enumerate(shown):
            earned = group.scores[number].total
            if earned is None:
                continue
            for name in names:
                if name not in best or earned > best[name][0]:
                    best[name] = earned, {**_sample(group, number), "habit": name}
    return [row for _, row in best.values()]
