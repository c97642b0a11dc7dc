"""Recipes that would waste a run, refused before any compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from strop.advantages import GROUPED
from strop.errors import RecipeError
from strop.judge.asking.family import expect_other_family
from strop.model.arithmetic import cpu_speeds, emulates_bfloat16
from strop.model.compiled import expect_compiler
from strop.model.kernels import expect_kernels
from strop.model.load import pick_device
from strop.recipe.judge import JudgeRecipe
from strop.recipe.loading.load import load
from strop.recipe.train.methods import Online, Recipe, method_of
from strop.recipe.train.online import OnlineRecipe, PolicyRecipe
from strop.recipe.train.source import AsynchronousRecipe
from strop.rollout.overlong import NAME as OVERLONG
from strop.train.loop.eight_bit import expect_bitsandbytes
from strop.train.methods.policy_gradient import loss_of
from strop.train.preflight.teacher import refuse_teacher

CAREFUL_RATE = 1e-4
"""Full-parameter preference training above this rate is known to displace likelihood."""


def refuse(recipe: Recipe, *, force: bool) -> None:
    """Raise `RecipeError` for options that contradict each other or cannot end well.

    `force` accepts what is merely reckless, never what is contradictory.
    """
    method = method_of(recipe)
    if recipe.text.overlong != "drop" and method.records in ("document", "task"):
        raise RecipeError(
            f"text.overlong is set, but method {recipe.method} does not read it",
            fix="drop it: documents are cut into pieces, prompts that are too long are dropped",
        )
    mixed = any(source.weight is not None for source in recipe.data)
    if recipe.text.cache != "auto" and method.records == "task" and not mixed:
        raise RecipeError(
            f"text.cache is set, but method {recipe.method} does not read it: prompts are kept in "
            "memory",
            fix="drop it (demonstrations that are replayed beside the prompts read it)",
        )
    for component in recipe.all_rewards:
        if component.judge is not None:
            judge = load(JudgeRecipe, component.judge)
            expect_other_family(judge, recipe.model.path, component.judge)
    refuse_teacher(recipe)
    if isinstance(recipe, OnlineRecipe):
        _refuse_contradictory_rollout(recipe)
        _refuse_useless_groups(recipe)
    _refuse_unfed_alarms(recipe)
    _refuse_offloading_to_itself(recipe)
    if recipe.model.router_aux_loss_coef is not None and method.scalar_head:
        raise RecipeError(
            f"model.router_aux_loss_coef is set, but method {recipe.method} does not read it",
            fix="drop it (all methods read it that train a language model)",
        )
    if recipe.model.kernels is not None:
        expect_kernels(pick_device(recipe.model.device))
    if recipe.run.compile:
        expect_compiler(pick_device(recipe.model.device))
    if recipe.optim.optimizer == "adamw_8bit":
        expect_bitsandbytes()
    if method.compares_logprobs and recipe.model.lora is not None and recipe.model.lora.dropout > 0:
        raise RecipeError(
            f"model.lora.dropout is set, but method {recipe.method} compares log-probs, which "
            "dropout would make noise of",
            fix="drop it (sft, dft, cpt, distil, gkd, reward_model and raft read it)",
        )
    if not force:
        _refuse_reckless(recipe)


def refuse_small_steps(recipe: Recipe, own: int) -> None:
    """Raise `RecipeError` for a step whose `own` records (replayed ones apart) are too few."""
    if method_of(recipe).whole_batch and own < 2:
        raise RecipeError(
            f"method {recipe.method} compares the records of a step with each other, but a step "
            "holds only one",
            fix="raise run.batch_size",
        )
    if recipe.mini_batches > own:
        raise RecipeError(
            f"objective.mini_batches {recipe.mini_batches} cuts a step of {own} prompts into "
            "batches that cannot hold one group each",
            fix="raise run.batch_size or lower objective.mini_batches",
        )


def _refuse_reckless(recipe: Recipe) -> None:
    _refuse_emulation(recipe)
    if (
        method_of(recipe).displaces
        and recipe.model.lora is None
        and recipe.optim.learning_rate > CAREFUL_RATE
    ):
        raise RecipeError(
            f"optim.learning_rate {recipe.optim.learning_rate:g} is above {CAREFUL_RATE:g} for "
            f"full-parameter {recipe.method}: such runs look perfect while the model forgets its "
            "task",
            fix="lower it (1e-6 to 1e-5 is usual), use model.lora, or pass --force",
        )


def _refuse_emulation(recipe: Recipe) -> None:
    if recipe.model.dtype == "bfloat16" and emulates_bfloat16(pick_device(recipe.model.device)):
        raise RecipeError(
            "model.dtype is bfloat16, which this processor only emulates: "
            f"{cpu_speeds().said()} (measured)",
            fix="set model.dtype: float32, or pass --force",
        )


def _refuse_offloading_to_itself(recipe: Recipe) -> None:
    if recipe.model.offload_activations and pick_device(recipe.model.device) == "cpu":
        raise RecipeError(
            "model.offload_activations moves activations from a GPU to the host's memory, where "
            "this run computes already",
            fix="remove it",
        )


def _refuse_contradictory_rollout(recipe: Online) -> None:
    rollout = recipe.rollout
    if rollout.max_tokens >= recipe.text.max_length:
        raise RecipeError(
            f"rollout.max_tokens {rollout.max_tokens} leaves no room for a prompt in "
            f"text.max_length {recipe.text.max_length}",
            fix="lower rollout.max_tokens or raise text.max_length",
        )
    if rollout.overlong_buffer >= rollout.max_tokens:
        raise RecipeError(
            f"rollout.overlong_buffer {rollout.overlong_buffer} covers every answer of "
            f"rollout.max_tokens {rollout.max_tokens}, so even the shortest would be punished",
            fix="make it a part of max_tokens (the paper: 4,096 of 20,480)",
        )
    named = {component.label for component in recipe.reward}
    if rollout.overlong_buffer and OVERLONG in named:
        raise RecipeError(
            "a reward component is named `overlong`, as the penalty of rollout.overlong_buffer is, "
            "so length would be punished twice under one name",
            fix="drop the component, or set rollout.overlong_buffer: 0",
        )
    if isinstance(rollout.source, AsynchronousRecipe) and rollout.engine.kind == "local":
        raise RecipeError(
            "rollout.source is async, and the embedded engine samples from the very weights that "
            "are being updated",
            fix="sample from another process (rollout.engine: {kind: vllm, url: ...}; "
            "`strop engine serve MODEL` starts one), or drop rollout.source",
        )
    if isinstance(rollout.source, AsynchronousRecipe) and rollout.curriculum is not None:
        raise RecipeError(
            "rollout.curriculum draws tasks by the groups that were scored before, and an async "
            "source draws them before that",
            fix="drop one of them",
        )
    if not method_of(recipe).importance_ratio and rollout.mismatch.level != "none":
        raise RecipeError(
            f"rollout.mismatch is set, but method {recipe.method} does not read it",
            fix="drop it: it corrects importance ratios, and this method has none",
        )
    if not method_of(recipe).importance_ratio and rollout.routing_replay:
        raise RecipeError(
            f"rollout.routing_replay is set, but method {recipe.method} does not read it",
            fix="drop it: it lets importance ratios compare the same experts, and this method has "
            "none",
        )


def _compares_groups(recipe: Online) -> bool:
    """Whether a group whose rewards are all equal teaches nothing."""
    if isinstance(recipe, PolicyRecipe):
        return loss_of(recipe).advantage in GROUPED and recipe.taught_by is None
    return recipe.method == "online_dpo"


def _has_eval(recipe: Online) -> bool:
    return recipe.eval is not None


def _has_other_rewards(recipe: Online) -> bool:
    return len(recipe.reward) > 1 or recipe.rollout.overlong_buffer > 0


def _has_reward(recipe: Online) -> bool:
    return bool(recipe.reward)


def _samples(recipe: Recipe) -> bool:
    return recipe.answer_tokens > 0


def _measures_kl(recipe: PolicyRecipe) -> bool:
    return loss_of(recipe).beta > 0


def _has_general_scores(recipe: Recipe) -> bool:
    return bool(recipe.dev and recipe.dev.general)


@dataclass(frozen=True, slots=True)
class Feed:
    """The metric an alarm needs: `Feed(_has_eval, "there is no held-out reward to compare with",
    "add `eval: {data: ...}`")`; `fed` says whether a run logs it."""

    fed: Callable[[Any], bool]
    problem: str
    fix: str


_HELD_OUT = Feed(
    _has_eval, "there is no held-out reward to compare with", "add `eval: {data: ...}`"
)

FEEDS = {
    "hacking": _HELD_OUT,
    "proxy_gap": _HELD_OUT,
    "slopes": _HELD_OUT,
    "dominance": Feed(
        _has_other_rewards, "one reward drives the whole advantage", "drop it, or add a reward"
    ),
    "zero_variance": Feed(
        _compares_groups,
        "this method learns from equal groups as well, so they are not counted",
        "drop it, or use a method with a group baseline (grpo, rloo)",
    ),
    "kl_runaway": Feed(
        _measures_kl,
        "objective.beta is 0, so no KL is measured",
        "set objective.beta, or drop the alarm",
    ),
    "length_pay": Feed(
        _has_reward, "there is no reward that could pay for length", "drop it, or add reward"
    ),
    "length_drift": Feed(
        _samples,
        "objective.own_samples is 0, so no answer is sampled",
        "drop it, or raise objective.own_samples",
    ),
    "capability_regression": Feed(
        _has_general_scores,
        "there is no general score to compare the target with",
        "add `dev: {suite: ..., metric: ..., general: [...]}`",
    ),
}
"""Alarms that need a metric which not every run logs; every run logs what the others need."""


def _refuse_unfed_alarms(recipe: Recipe) -> None:
    """Raise `RecipeError` for an alarm that was set, but whose number this run never logs."""
    usual = dict(type(recipe.alarms)())
    for name, alarm in recipe.alarms:
        feed = FEEDS.get(name)
        if feed is not None and alarm != usual[name] and not feed.fed(recipe):
            raise RecipeError(f"alarms.{name} is set, but {feed.problem}", fix=feed.fix)


def _refuse_useless_groups(recipe: Online) -> None:
    """Refuse groups and baselines that would have no effect, and contradictory clipping or KL
    options."""
    size = recipe.rollout.group_size
    if not isinstance(recipe, PolicyRecipe):
        if size == 1:
            raise RecipeError(
                f"method {recipe.method} compares the answers to one prompt, but "
                "rollout.group_size is 1",
                fix="raise rollout.group_size (4 to 16 is usual)",
            )
        if recipe.rollout.resample and not _compares_groups(recipe):
            raise RecipeError(
                f"rollout.resample is set, but method {recipe.method} learns from equal groups as "
                "well",
                fix="drop it, or leave poor answers out with objective.min_reward",
            )
        return
    grouped = _compares_groups(recipe)
    if grouped and size == 1:
        raise RecipeError(
            f"method {recipe.method} takes its baseline from the group, but rollout.group_size is "
            "1: every advantage would be 0",
            fix="raise rollout.group_size (8 is usual), or use reinforce_pp or ppo",
        )
    if not grouped and recipe.rollout.resample:
        raise RecipeError(
            f"rollout.resample is set, but method {recipe.method} has no group baseline, so equal "
            "groups carry a gradient",
            fix="drop rollout.resample",
        )
    loss = loss_of(recipe)
    if loss.kl_weighted and loss.kl_in == "reward":
        raise RecipeError(
            "objective.kl_weighted is a choice of the loss term, but the KL is part of the reward",
            fix="drop it, or set objective.kl_in: loss",
        )
    bounds = loss.bounds
    if bounds[0] is not None and bounds[1] is not None and bounds[1] < bounds[0]:
        raise RecipeError(
            f"objective.epsilon_high {bounds[1]:g} is below epsilon_low {bounds[0]:g} (what is not "
            "set is the paper's)",
            fix="clip-higher means epsilon_high >= epsilon_low: set both",
        )
    if recipe.method == "ppo" and recipe.critic is None:
        raise RecipeError(
            "method ppo has no value model, so there is no baseline",
            fix="add `value: {path: ..., learning_rate: ...}` (a reward model, or the starting "
            "model for a fresh head), or use a method without a critic (rloo, grpo, reinforce_pp)",
        )
