"""Episodes of a held-out environment, and whether a model is right every time."""

from __future__ import annotations

import json
from collections.abc import Sequence

from strop.engines.draws import DrawKey
from strop.engines.engine import Engine, in_groups, requests_of, sampling_of
from strop.engines.local.engine import LocalEngine
from strop.engines.served.fixed import FixedEngine
from strop.errors import RecipeError, UsageError
from strop.evals.tasks.generation import record_of
from strop.recipe.suite import EpisodeTask
from strop.rewards.find import declared_range
from strop.rollout.environments import expect_shown, way_of
from strop.rollout.group import rollout_of
from strop.rollout.play import Player
from strop.types import EvalRecord, Rollout, Task

LABELS = ("id", "cluster", "tools")
"""Columns that say nothing of what a task is."""


def told_by(reads: Sequence[str] | None, rows: Sequence[Task]) -> list[str]:
    """The columns that tell apart tasks whose prompts are alike: those that their environment
    `reads`. Where it is given all (`None`), those in which the rows differ, since one that says
    `test` in every row says nothing of any."""
    if reads is not None:
        return list(reads)
    names = dict.fromkeys(name for row in rows for name in row.columns if name not in LABELS)
    return [
        name
        for name in names
        if len({json.dumps(row.columns.get(name), sort_keys=True, default=str) for row in rows}) > 1
    ]


def played(recipe: EpisodeTask, engine: Engine, tasks: Sequence[Task], seed: int) -> list[Rollout]:
    """`samples` episodes of every task, in order, with the draws of an eval."""
    if not isinstance(engine, LocalEngine | FixedEngine):
        raise UsageError("episodes are played by a model folder, in this process or on its servers")
    way, tokenizer = way_of(recipe.environment), engine.tokenizer()
    expect_shown(way.tools, tokenizer)
    sampling = sampling_of(recipe.sampling)
    prompts = engine.prompted(tasks, sampling)
    requests = requests_of(prompts, sampling, DrawKey(seed, "eval"), recipe.samples)
    player = Player(engine, way.play(tokenizer, engine.context()), recipe.environment)
    try:
        groups = in_groups(player.generate(requests), recipe.samples)
    finally:
        player.close()
    return [rollout_of(prompt, group) for prompt, group in zip(prompts, groups, strict=True)]


def expect_some_pass(recipe: EpisodeTask, bounds: tuple[float, float] | None) -> None:
    """Raise `RecipeError` where `passes` divides no scores of the range that is declared; that of
    the score `environment` are `bounds`."""
    first = recipe.scores[0]
    declared = bounds if first.is_environment else declared_range(first)
    if declared is None or recipe.samples == 1 or declared[0] < recipe.passes <= declared[1]:
        return
    low, high = declared
    all_or_none = "every" if recipe.passes <= low else "no"
    raise RecipeError(
        f"with passes {recipe.passes:g} {all_or_none} episode passes: the first score, "
        f"{recipe.scores[0].label}, is from {low:g} to {high:g}",
        where=f"task {recipe.name}",
        fix="passes is the lowest score of an episode that has passed (default 1); how many "
        "episodes there are is `samples`",
    )


def all_passed(
    recipe: EpisodeTask, rollouts: Sequence[Rollout], scored: Sequence[EvalRecord]
) -> list[EvalRecord]:
    """`pass^k` of every item, k being the number of its samples: 1 where each of them passed. An
    item of which one could not be scored has none, unless another failed."""
    if recipe.samples == 1:
        return []
    first = [r for r in scored if r.task == f"{recipe.name}/{recipe.scores[0].label}"]
    records = []
    for number, rollout in enumerate(rollouts):
        own = first[number * recipe.samples : (number + 1) * recipe.samples]
        passed = [None if one.score is None else one.score >= recipe.passes for one in own]
        every = 0.0 if False in passed else None if None in passed else 1.0
        name = f"{recipe.name}/pass^{recipe.samples}"
        records.append(record_of(recipe, name, rollout, 0, every, scale=(0.0, 1.0)))
    return records
