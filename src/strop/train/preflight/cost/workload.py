"""How much a run reads and writes: tokens and answers of a step, and how many steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from strop.recipe.train.distillation import GkdRecipe
from strop.recipe.train.methods import Recipe
from strop.recipe.train.online import OnlineRecipe
from strop.recipe.train.rollout import RolloutRecipe
from strop.train.preflight.prepared import Prepared, PreparedOffline, PreparedOnline
from strop.types import Tree

LOOKED_AT = 2000
"""Records, evenly drawn, whose lengths stand for all: a store on disk is not read as a whole."""
ANSWERED = 0.5
"""Share of `max_tokens` that an answer is assumed to take before any was sampled."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Of a whole run `steps`, of a step `step_tokens` to learn from (`supervised` of them), its
    `answers` to sample and `prompt_tokens` to read for them; `longest` is the longest record and
    `answer_tokens` the longest prompt with its answer. All but the last two are means.

    `Workload(steps=19, step_tokens=1420, supervised=220, longest=131, answers=0, ...)`.
    """

    steps: int
    step_tokens: int
    supervised: int
    longest: int
    answers: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    sampled: int = 0
    assumed: tuple[str, ...] = ()


def workload_of(prepared: Prepared) -> Workload:
    """From data that was read: lengths as they are, answers to sample as long as assumed."""
    recipe = prepared.recipe
    if isinstance(prepared, PreparedOffline):
        return _of_trees(prepared.rendered.trees, recipe, prepared.total_steps)
    assert isinstance(prepared, PreparedOnline)
    assert isinstance(recipe, OnlineRecipe)
    prompts = [len(task.prompt_ids) for task in prepared.tasks]
    group, asked = recipe.rollout.group_size, recipe.run.batch_size
    answer, most, assumed = answer_lengths(recipe.rollout)
    tree = round(fmean(prompts)) + group * answer
    return Workload(
        steps=prepared.total_steps,
        step_tokens=asked * tree,
        supervised=asked * group * answer,
        longest=max(prompts) + most,
        answers=asked * group,
        prompt_tokens=round(asked * fmean(prompts)),
        answer_tokens=round(fmean(prompts)) // group + most,
        sampled=asked * group * answer,
        assumed=(assumed,),
    )


def answer_lengths(rollout: RolloutRecipe) -> tuple[int, int, str]:
    """Tokens of a mean and of the longest answer, and what is taken for granted there."""
    most, turn = rollout.max_tokens, max(1, round(ANSWERED * rollout.max_tokens))
    world = rollout.environment
    if world is None:
        return turn, most, f"answers are {turn} tokens long, half of rollout.max_tokens"
    turns, whole = max(1, round(ANSWERED * world.max_turns)), world.max_turns * most
    bound = min(whole, world.max_episode_tokens or whole)
    said = (
        f"episodes have {turns} turns of {turn} tokens, half of max_turns and of "
        "rollout.max_tokens; what their environment says, and its time, are not counted"
    )
    return min(turns * turn, bound), bound, said


def _of_trees(trees: Sequence[Tree], recipe: Recipe, steps: int) -> Workload:
    drawn = [trees[n] for n in range(0, len(trees), max(1, len(trees) // LOOKED_AT))]
    lengths = [len(tree) for tree in drawn]
    learnt = [sum(sum(branch.supervised) for branch in tree.branches) for tree in drawn]
    batch = recipe.run.batch_size
    read = Workload(
        steps=steps,
        step_tokens=round(batch * fmean(lengths)),
        supervised=round(batch * fmean(learnt)),
        longest=max(lengths),
    )
    if not isinstance(recipe, GkdRecipe) or recipe.answer_tokens == 0:
        return read
    prompts, most = [len(tree.trunk) for tree in drawn], recipe.answer_tokens
    answers = round(batch * recipe.objective.own_samples)
    return replace(
        read,
        longest=max(read.longest, max(prompts) + most),
        answers=answers,
        prompt_tokens=round(answers * fmean(prompts)),
        answer_tokens=round(fmean(prompts)) + most,
        sampled=answers * max(1, round(ANSWERED * most)),
        assumed=("own samples are half of rollout.max_tokens long",),
    )


def assumed_workload(recipe: Recipe) -> Workload:
    """Where no tokenizer is at hand: every record is as long as `text.max_length` allows, and a run
    in epochs is of 1,000 records."""
    length, batch = recipe.text.max_length, recipe.run.batch_size
    steps = recipe.run.steps or max(1, round((recipe.run.epochs or 1) * 1000 / batch))
    assumed = [f"every record is {length} tokens long (text.max_length), because the data was not "
               "read"]  # fmt: skip
    if recipe.run.steps is None:
        assumed.append("the data holds 1,000 records")
    if not isinstance(recipe, OnlineRecipe):
        return Workload(steps, batch * length, batch * length, length, assumed=tuple(assumed))
    group, most = recipe.rollout.group_size, recipe.rollout.max_tokens
    prompt = max(1, length - most)
    return Workload(
        steps, batch * (prompt + group * most), batch * group * most, length, batch * group,
        batch * prompt, prompt // group + most, batch * group * most, tuple(assumed),
    )  # fmt: skip
