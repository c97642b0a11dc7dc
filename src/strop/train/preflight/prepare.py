"""Reads and checks everything before a run starts; writes only the cache of tokenised records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

from strop.engines.engine import PromptedTask
from strop.engines.served.expect import expect_routes, expect_servers
from strop.engines.served.server import About
from strop.engines.served.start import expect_python
from strop.engines.served.ways import expect_way
from strop.errors import RecipeError
from strop.model.arithmetic import Precision, emulates_bfloat16
from strop.model.load import expect_weights, pick_device, tokenizer_of
from strop.recipe.train.engine import LocalEngineRecipe, VllmRecipe
from strop.recipe.train.methods import Offline, Online, Recipe, method_of
from strop.recipe.train.online import OnlineRecipe
from strop.rewards.audit.check import defend
from strop.rewards.combine import total_range
from strop.rewards.compose import Reward
from strop.rewards.find import declared_range, expect_known, runs_code
from strop.rollout.environments import Way, expect_shown, way_of
from strop.rollout.rehearsal import first_prompt
from strop.sandbox.tiers import strongest
from strop.text.chat.clock import written_on
from strop.text.trees import joined
from strop.tracking.notify.receivers import expect_receivers
from strop.tracking.sinks import expect_sinks
from strop.train.loop.online import HeldOut
from strop.train.monitor.dev import load_dev, refuse_trained_on
from strop.train.preflight.bounds import (
    expect_bounding,
    expect_critic,
    report_positions,
    within_positions,
)
from strop.train.preflight.demands import DEMANDS, nothing_more
from strop.train.preflight.mixture import mixture_of, total_steps
from strop.train.preflight.prepared import Prepared, PreparedOffline, PreparedOnline
from strop.train.preflight.refuse import refuse
from strop.train.preflight.selfcheck import check_rendered
from strop.train.preflight.sources import (
    Reading,
    by_role,
    replay_checks,
)
from strop.train.preflight.starting_model import (
    expect_lora_targets,
    expect_routing,
    expect_tensor_plans,
)
from strop.train.preflight.teacher import (
    expect_informed,
    expect_teacher,
    longest_answers,
)
from strop.train.preflight.tokenised import TokenCache
from strop.train.rundir.directory import claim, has_begun, self_check

MUON = "muon"
"""Key of Muon's precision in the checks and in `lineage.json`."""


def prepare(
    recipe: Recipe,
    *,
    resume: bool,
    overwrite: bool,
    force: bool,
    force_resume: bool = False,
    dry_run: bool = False,
) -> Prepared:
    """Refuse what cannot end well, read the data, check it; loads no weights.

    Writes only tokenised records that outgrow memory; a `dry_run` deletes them again.
    """
    refuse(recipe, force=force)
    expect_sinks(recipe.run.sinks)
    expect_receivers(recipe.run.notify, "run.notify")
    dev = load_dev(recipe)
    expect_weights(recipe.model.path)
    if recipe.critic is not None:
        expect_critic(recipe.critic.path, recipe)
    if recipe.taught_by is not None:
        expect_teacher(recipe, tokenizer_of(recipe.model, recipe.template))
    folder = claim(recipe, resume=resume, overwrite=overwrite, force_resume=force_resume)
    expect_lora_targets(recipe)
    expect_routing(recipe)
    expect_tensor_plans(recipe)
    given, recipe = recipe, within_positions(recipe)
    tokenizer = tokenizer_of(recipe.model, recipe.template)
    cache = TokenCache(recipe, keep=not dry_run)
    prepared: Prepared
    with written_on(recipe.text.date):
        if isinstance(recipe, OnlineRecipe):
            expect_bounding(recipe)
            prepared = _online(recipe, folder, tokenizer, cache)
        else:
            prepared = _offline(recipe, folder, tokenizer, cache)
    prepared.checks.update(cache.checks())
    if dev is not None and not force:
        refuse_trained_on(dev, prepared.records())
    if recipe is not given:
        report_positions(given, prepared)
    if recipe.optim.optimizer == "muon":
        muon = _muon_precision(recipe, folder, resume=resume)
        prepared = replace(prepared, muon=muon, checks={**prepared.checks, MUON: muon})
    return replace(prepared, dev=dev)


def _muon_precision(recipe: Recipe, folder: Path, *, resume: bool) -> Precision:
    """A resumed run takes the precision from its `lineage.json`, so that it uses the same
    arithmetic on any machine (older runs without the entry used bfloat16). A new run takes what
    this processor does fast."""
    if resume and has_begun(folder):
        return "float32" if self_check(folder).get(MUON) == "float32" else "bfloat16"
    return "float32" if emulates_bfloat16(pick_device(recipe.model.device)) else "bfloat16"


def _offline(recipe: Offline, folder: Path, tokenizer: Any, cache: TokenCache) -> PreparedOffline:
    method = method_of(recipe)
    roles = by_role(recipe, method.records)
    reading = Reading(recipe.text, tokenizer, cache)
    parts = [reading.rendered(source, method.records) for source in roles.own]
    replay = reading.replay(roles)
    own = joined(parts)
    demands = DEMANDS.get(method.family, nothing_more)
    checks = check_rendered(own).plain() | demands(recipe, own)
    expect_informed(recipe, tokenizer, own.records, longest_answers(recipe, own.trees))
    sizes = [len(part.trees) for part in parts]
    mixture = mixture_of(recipe, roles, sizes, [len(r.trees) for r in replay])
    checks |= replay_checks(replay)
    held_out = None
    if recipe.eval is not None:
        looked_at = [
            reading.rendered(source, method.records, held_out=True) for source in recipe.eval.data
        ]
        held_out = joined(looked_at)
        longest = longest_answers(recipe, held_out.trees)
        expect_informed(recipe, tokenizer, held_out.records, longest)
        checks |= {"held_out": len(held_out.trees), "held_out_dropped": held_out.dropped}
        if method.family == "reward_model":
            demands(recipe, held_out)
    return PreparedOffline(
        recipe=recipe,
        folder=folder,
        checks=checks,
        mixture=mixture,
        total_steps=total_steps(recipe, mixture),
        replay=joined(replay) if replay else None,
        sources=tuple(reading.reports),
        rendered=own,
        held_out=held_out,
    )


def _online(recipe: Online, folder: Path, tokenizer: Any, cache: TokenCache) -> PreparedOnline:
    roles = by_role(recipe, "task")
    room = recipe.text.max_length - recipe.rollout.max_tokens
    way = None if recipe.rollout.environment is None else way_of(recipe.rollout.environment)
    if way is not None:
        expect_shown(way.tools, tokenizer)
        _expect_rewards(recipe, way)
        _expect_passes(recipe, way)
    reading = Reading(recipe.text, tokenizer, cache, tools=way.tools if way else None)
    by_source = [reading.prompted(source, room) for source in roles.own]
    replay = reading.replay(roles)
    tasks = tuple(task for found in by_source for task in found.tasks)
    dropped = sum(found.dropped for found in by_source)
    checks: dict[str, Any] = {"records": len(tasks), "dropped": dropped, **replay_checks(replay)}
    reward = Reward(recipe.reward, in_groups=True)
    if any(map(runs_code, recipe.reward)):
        checks["sandbox"] = strongest()
    asked = [task.task for task in tasks]
    expect_informed(recipe, tokenizer, asked, repeat(recipe.answer_tokens))
    reward.expect_columns(asked)
    if way is not None:
        for one in asked:
            way.expect(one)
    played = None if way is None else way.tools or ()
    checks |= defend(recipe.reward, recipe.probes, asked, partial(_ids, tokenizer), played)
    held_out = None
    if recipe.eval is not None:
        judge = Reward(recipe.eval.reward or recipe.reward)
        looked_at = [reading.prompted(one, room, held_out=True) for one in recipe.eval.data]
        measured = tuple(task for found in looked_at for task in found.tasks)
        judge.expect_columns([task.task for task in measured])
        held_out = HeldOut(recipe.eval, measured, judge)
        left_out = sum(found.dropped for found in looked_at)
        checks |= {"held_out": len(measured), "held_out_dropped": left_out}
    sizes = [len(found.tasks) for found in by_source]
    mixture = mixture_of(recipe, roles, sizes, [len(r.trees) for r in replay])
    return PreparedOnline(
        recipe=recipe,
        folder=folder,
        checks=checks,
        mixture=mixture,
        total_steps=total_steps(recipe, mixture),
        replay=joined(replay) if replay else None,
        sources=tuple(reading.reports),
        tasks=tasks,
        reward=reward,
        held_out=held_out,
        server=_server(recipe, tokenizer, tasks if held_out is None else (*tasks, *held_out.tasks)),
        way=way,
        first_prompt=_first_prompt(way, tasks[0], tokenizer),
    )


def _expect_rewards(recipe: Online, way: Way) -> None:
    """Raise `RecipeError` for rewards of environments that nobody reads, or that there are not."""
    for component in recipe.reward:
        expect_known(component)
    read = any(component.is_environment for component in recipe.reward)
    if way.rewards and not read:
        raise RecipeError(
            "the environment gives rewards, and the recipe does not read them",
            fix="add `- function: environment` to reward (with a weight, if others count more)",
            key="reward",
        )
    if read and not way.rewards:
        raise RecipeError(
            "the reward `environment` is read, and the environment gives none",
            fix="let it give one (`get_reward`), or score the answers by another reward",
            key="reward",
        )


def _expect_passes(recipe: Online, way: Way) -> None:
    """Raise `RecipeError` where `rollout.curriculum.passes` divides no totals of the range that is
    known: every task or none would count as solved."""
    if recipe.rollout.curriculum is None:
        return
    passes = recipe.rollout.curriculum.passes
    known = total_range(
        recipe.reward,
        [way.bounds if one.is_environment else declared_range(one) for one in recipe.reward],
    )
    if known is None or passes <= known[1]:
        return
    raise RecipeError(
        f"with rollout.curriculum.passes {passes:g} no answer passes: rewards in all are from "
        f"{known[0]:g} to {known[1]:g}",
        fix="passes is the lowest total of an answer that has passed (default 1)",
        key="rollout.curriculum.passes",
    )


def _first_prompt(way: Way | None, first: PromptedTask, tokenizer: Any) -> str | None:
    """What the policy reads of the first task. Raises `WorldError` where no episode of it can
    begin."""
    if way is None or way.begin is None:
        return None
    return first_prompt(first, way.begin(first.task), way.tools, tokenizer)


def _server(recipe: Online, tokenizer: Any, prompts: Sequence[PromptedTask]) -> About | None:
    """What the recipe's servers hold, if it names any that run."""
    engine, tokens = recipe.rollout.engine, recipe.rollout.max_tokens
    if isinstance(engine, LocalEngineRecipe):
        return None
    if isinstance(engine, VllmRecipe) and engine.python is not None:
        expect_python(engine)
        expect_way(engine, recipe.model)
        return None
    about = expect_servers(engine, recipe.model, tokenizer, prompts, answer_tokens=tokens)
    if recipe.rollout.routing_replay:
        expect_routes(engine, prompts[0])
    return about


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
