"""Learning from the model's own samples: GRPO and its family.

A step samples a group per prompt, judges it, turns rewards into advantages and takes one
on-policy update. Groups whose rewards are all equal carry no gradient without a KL term: they are
neither forwarded nor differentiated, and the loss's denominators still count them.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from strop.advantages import ADVANTAGES
from strop.data.order import batch_indices
from strop.losses.presets import PRESETS, PolicyLoss, PolicyTokens, policy_loss
from strop.losses.reduce import Loss, StepCounts
from strop.metrics.value import Mean, Metric, results
from strop.model.reference import Reference
from strop.recipe.run import PolicyRecipe
from strop.rewards.compose import Reward
from strop.rollout.collect import Collected, PromptedTask, collect
from strop.rollout.sampler import Sampler, Sampling
from strop.train.optim import learning_rate
from strop.train.step import TrainState, optimizer_step, pieces, split_tree
from strop.types import Branch, ScoredGroup, StepRecord, TokenScores, Tree


@dataclass(frozen=True, slots=True)
class OnlineParts:
    """What an online run works with; `reference` is None when the KL weight is 0."""

    tasks: Sequence[PromptedTask]
    sampler: Sampler
    reward: Reward
    reference: Reference | None


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is left of a step's groups to learn from.

    `trees` hold only completions that carry gradient; `advantage_B` and `sampled_B` (the
    sampler's log-probs) follow their branches in order; `counts` are those of the whole step.
    """

    trees: tuple[Tree, ...]
    advantage_B: torch.Tensor
    sampled_B: tuple[tuple[float, ...], ...]
    counts: StepCounts


def total_steps(recipe: PolicyRecipe, tasks: int) -> int:
    """Optimizer steps of the whole run."""
    if recipe.run.steps is not None:
        return recipe.run.steps
    assert recipe.run.epochs is not None
    return max(1, round(recipe.run.epochs * tasks / recipe.run.batch_size))


def method_of(recipe: PolicyRecipe) -> PolicyLoss:
    """The method's preset with what the recipe sets itself."""
    given = recipe.objective.model_dump(exclude_none=True)
    return PRESETS[recipe.method](**given)


def sampling_of(recipe: PolicyRecipe) -> Sampling:
    rollout = recipe.rollout
    return Sampling(
        temperature=rollout.temperature,
        max_tokens=rollout.max_tokens,
        stop=tuple(rollout.stop),
    )


def train_online(
    state: TrainState, recipe: PolicyRecipe, parts: OnlineParts
) -> Iterator[StepRecord]:
    """Run from `state.step` to the end, one record a step; the caller logs and checkpoints."""
    total = total_steps(recipe, len(parts.tasks))
    method = method_of(recipe)
    while state.step < total:
        started = time.perf_counter()
        chosen = batch_indices(len(parts.tasks), recipe.run.batch_size, recipe.seed, state.step)
        with state.policy.arithmetic():
            collected = collect(
                [parts.tasks[i] for i in chosen],
                parts.sampler,
                parts.reward.judge_rollouts,
                group_size=recipe.rollout.group_size,
                sampling=sampling_of(recipe),
                seed=recipe.seed,
                step=state.step,
            )
        sampled = time.perf_counter()
        for failure in collected.failures:
            warnings.warn(
                f"reward {failure.component} failed ({failure.error}): its samples are unscored",
                stacklevel=2,
            )
        lesson = prepare(collected.groups, recipe, method)
        metrics = update(state, recipe, method, lesson, parts.reference, total)
        row = results(metrics) | rollout_metrics(collected, lesson)
        row["sampling_time"] = sampled - started
        row["step_time"] = time.perf_counter() - started
        yield StepRecord(state.step, total, row, _samples(collected.groups[0]))


def prepare(groups: Sequence[ScoredGroup], recipe: PolicyRecipe, method: PolicyLoss) -> Lesson:
    """Advantages, and the trees that carry gradient."""
    rewards_PG = torch.tensor(
        [[float("nan") if s.total is None else s.total for s in g.scores] for g in groups],
        dtype=torch.float32,
    )
    advantage_PG = ADVANTAGES[method.advantage](rewards_PG)
    trees: list[Tree] = []
    advantages: list[float] = []
    sampled: list[tuple[float, ...]] = []
    counted: list[int] = []
    for group, advantage_G in zip(groups, advantage_PG.tolist(), strict=True):
        completions = group.rollout.completions
        masked = [
            recipe.rollout.mask_truncated and c.finish_reason == "length" for c in completions
        ]
        counted += [len(c.ids) for c, hidden in zip(completions, masked, strict=True) if not hidden]
        if method.beta == 0 and carries_no_gradient(group):
            continue
        kept = [i for i, c in enumerate(group.scores) if c.total is not None and not masked[i]]
        branches = tuple(
            Branch(completions[i].ids, (True,) * len(completions[i].ids)) for i in kept
        )
        if kept:
            tree = Tree(group.rollout.prompt_ids, branches)
            trees += split_tree(tree, recipe.run.micro_batch_tokens)
            advantages += [advantage_G[i] for i in kept]
            sampled += [completions[i].logprobs for i in kept]
    counts = StepCounts(
        sequences=max(1, len(counted)),
        tokens=max(1, sum(counted)),
        max_length=recipe.rollout.max_tokens,
    )
    return Lesson(tuple(trees), torch.tensor(advantages), tuple(sampled), counts)


def carries_no_gradient(group: ScoredGroup) -> bool:
    """Whether all scored completions of the group got the same reward."""
    totals = {score.total for score in group.scores if score.total is not None}
    return len(totals) < 2


def update(
    state: TrainState,
    recipe: PolicyRecipe,
    method: PolicyLoss,
    lesson: Lesson,
    reference: Reference | None,
    total: int,
) -> dict[str, Metric]:
    """One on-policy optimizer step; the ratio's denominator is the policy itself, detached."""
    device = state.policy.device
    temperature = recipe.rollout.temperature
    work = list(pieces(lesson.trees, recipe.run.micro_batch_tokens))
    by_piece = {piece.branches.start: piece for piece in work}

    def loss_of(scores: TokenScores, branches: slice) -> Loss:
        ref_N = None
        if reference is not None:
            trees = by_piece[branches.start].trees
            ref_N = reference.logprobs(trees, temperature=temperature)
        advantage_B = lesson.advantage_B[branches].to(device)
        old_N = scores.logprobs_N.detach()
        tokens = PolicyTokens(
            scores.logprobs_N, old_N, ref_N, advantage_B[scores.branch_N], scores.branch_N
        )
        loss = policy_loss(method, tokens, lesson.counts)
        sampler_N = torch.tensor([x for row in lesson.sampled_B[branches] for x in row])
        mismatch = (sampler_N - old_N.cpu()).abs()
        seen = {"mismatch/logprob_difference": Mean(float(mismatch.sum()), len(mismatch))}
        return Loss(loss.value, {**loss.metrics, **seen})

    return optimizer_step(
        state,
        work,
        loss_of,
        learning_rate=learning_rate(recipe.optim, state.step, total),
        max_grad_norm=recipe.optim.max_grad_norm,
        temperature=temperature,
    )


def rollout_metrics(collected: Collected, lesson: Lesson) -> dict[str, float]:
    """What the step's samples look like, named as TRL names them."""
    groups = collected.groups
    scores = [score for group in groups for score in group.scores]
    completions = [c for group in groups for c in group.rollout.completions]
    totals = [score.total for score in scores if score.total is not None]
    rewards = torch.tensor(totals)
    lengths = torch.tensor([len(c.ids) for c in completions], dtype=torch.float32)
    same = sum(carries_no_gradient(group) for group in groups)
    row = {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std(correction=0)),
        "frac_reward_zero_std": same / len(groups),
        "skipped/groups": same if len(lesson.advantage_B) < len(completions) else 0.0,
        "skipped/unscored": len(scores) - len(totals),
        "completions/mean_length": float(lengths.mean()),
        "completions/max_length": float(lengths.max()),
        "completions/clipped_ratio": sum(c.finish_reason == "length" for c in completions)
        / len(completions),
        "num_tokens": float(lengths.sum()),
    }
    for name in scores[0].components:
        values = [v for s in scores if (v := s.components[name]) is not None]
        if values:
            row[f"rewards/{name}/mean"] = sum(values) / len(values)
    return row


def _samples(group: ScoredGroup) -> list[dict[str, Any]]:
    """The best and the worst scored completion of a group."""
    pairs = zip(group.scores, group.rollout.completions, strict=True)
    rows: list[dict[str, Any]] = [
        {
            "prompt": group.rollout.task.prompt,
            "completion": completion.text,
            "reward": score.total,
            **score.components,
        }
        for score, completion in pairs
        if score.total is not None
    ]
    rows.sort(key=lambda row: row["reward"], reverse=True)
    return rows if len(rows) < 2 else [rows[0], rows[-1]]
