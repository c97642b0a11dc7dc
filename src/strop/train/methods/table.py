"""Builders of each family's methods: one table for records, one for the model's own samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from strop.distributed.world import World
from strop.model.network import Policy, ScalarNetwork
from strop.model.reference import Reference
from strop.recipe.train.distillation import DistilRecipe, GkdRecipe, TaughtRecipe
from strop.recipe.train.methods import Family, Offline, Online, Recipe, method_of
from strop.recipe.train.offline import (
    CptRecipe,
    PairRecipe,
    RewardModelRecipe,
    SftRecipe,
    UnpairedRecipe,
)
from strop.recipe.train.online import OnlineDpoRecipe, PolicyRecipe, RaftRecipe
from strop.recipe.train.teacher import RecordedTeacher
from strop.train.loop.micro_batches import forward_tokens
from strop.train.loop.offline import OfflineMethod
from strop.train.loop.online import Learner
from strop.train.loop.state import TrainState
from strop.train.methods.balance import Balance, BalancedLearner, BalancedRecords
from strop.train.methods.distil import DistilMethod, GkdMethod
from strop.train.methods.pairs import PairMethod, PairRule, reference_read
from strop.train.methods.policy_gradient import PolicyGradient, loss_of
from strop.train.methods.ranked import OnlineDpo, Raft
from strop.train.methods.reference import MethodRecords, ReferenceCache
from strop.train.methods.reward_model import RewardModelMethod, margins_of
from strop.train.methods.supervised import TOKEN_LOSSES, SupervisedMethod
from strop.train.methods.taught import taught_of
from strop.train.methods.unpaired import OtherAnswers, UnpairedMethod, branch_sums, other_answers
from strop.train.teachers.build import Teaching, tokens_hash
from strop.train.teachers.keep import FILE, kept_or_made
from strop.train.teachers.recorded import read_recorded
from strop.types import Feedback

OfflineBuilder = Callable[[TrainState, Any, ReferenceCache, MethodRecords, World], OfflineMethod]
"""(state, recipe, cache, records, world) -> the method; the recipe is its family's."""

TaughtBuilder = Callable[[TrainState, Any, Teaching, MethodRecords, Path, World], OfflineMethod]
"""(state, recipe, teaching, records, run folder, world) -> the method."""

OnlineBuilder = Callable[[TrainState, Any, Reference | None, Teaching | None, World], Learner]
"""(state, recipe, reference, teaching, world) -> the learner."""


def _supervised(
    state: TrainState,
    recipe: CptRecipe | SftRecipe,
    cache: ReferenceCache,
    records: MethodRecords,
    world: World,
) -> OfflineMethod:
    policy = policy_of(state)
    return SupervisedMethod(
        policy,
        records.rendered.trees,
        forward_tokens(recipe.run, policy),
        loss=TOKEN_LOSSES[recipe.method],
    )


def _pairs(
    state: TrainState,
    recipe: PairRecipe,
    cache: ReferenceCache,
    records: MethodRecords,
    world: World,
) -> OfflineMethod:
    policy, trees = policy_of(state), records.rendered.trees
    rule = PairRule(recipe.method, recipe.objective)
    ref_B2 = None
    if method_of(recipe).reference:
        ref_B2 = cache.scores(policy, recipe, trees, reference_read(rule), records, "reference")
    max_tokens = forward_tokens(recipe.run, policy)
    return PairMethod(rule, max_tokens, policy, trees, ref_B2, state.reward_mean, world=world)


def _unpaired(
    state: TrainState,
    recipe: UnpairedRecipe,
    cache: ReferenceCache,
    records: MethodRecords,
    world: World,
) -> OfflineMethod:
    policy, rendered = policy_of(state), records.rendered
    labels = [record.label for record in rendered.records if isinstance(record, Feedback)]
    ref_R = cache.scores(policy, recipe, rendered.trees, branch_sums, records, "reference")
    others = None
    if method_of(recipe).whole_batch:
        trees = other_answers(rendered.trees, recipe.seed, recipe.text.max_length)
        ref_other_R = cache.scores(
            policy, recipe, trees, branch_sums, records, "reference_mismatched"
        )
        others = OtherAnswers(trees, ref_other_R)
    return UnpairedMethod(
        recipe, policy, rendered.trees, torch.tensor(labels), ref_R, others, world=world
    )


def _reward_model(
    state: TrainState,
    recipe: RewardModelRecipe,
    cache: ReferenceCache,
    records: MethodRecords,
    world: World,
) -> OfflineMethod:
    assert isinstance(state.network, ScalarNetwork)
    margins = None
    if recipe.objective.margin is not None:
        margins = torch.tensor(margins_of(records.rendered, recipe.objective.margin))
    return RewardModelMethod(recipe, state.network, records.rendered.trees, margins)


OFFLINE: Mapping[Family, OfflineBuilder] = {
    "supervised": _supervised,
    "pairs": _pairs,
    "unpaired": _unpaired,
    "reward_model": _reward_model,
}


def _distil(
    state: TrainState,
    recipe: DistilRecipe,
    teaching: Teaching,
    records: MethodRecords,
    folder: Path,
    world: World,
) -> OfflineMethod:
    policy, rendered = policy_of(state), records.rendered
    visited = None if records.visited is None else records.visited()
    chosen = np.arange(len(rendered.trees)) if visited is None else visited
    if isinstance(recipe.teacher, RecordedTeacher):
        file = Path(recipe.teacher.recorded)
        of_these = file.with_name(f"{records.prefix}{file.name}")  # held-out ones are beside it
        recorded = read_recorded(of_these, tokens_hash(policy.tokenizer))
        origins = [rendered.records[i].origin for i in chosen]
        recorded.expect([rendered.trees[i] for i in chosen], origins, str(of_these))
        teaching = replace(teaching, teacher=recorded)
    elif recipe.objective.top_k is not None:
        kept = kept_or_made(
            teaching, policy, rendered, chosen,
            top_k=recipe.objective.top_k, path=folder / f"{records.prefix}{FILE}",
            max_tokens=forward_tokens(recipe.run, policy), world=world,
        )  # fmt: skip
        teaching = replace(teaching, teacher=kept, informed=None)
    return DistilMethod(recipe, policy, rendered, teaching)


def _gkd(
    state: TrainState,
    recipe: GkdRecipe,
    teaching: Teaching,
    records: MethodRecords,
    folder: Path,
    world: World,
) -> OfflineMethod:
    own = not records.prefix
    return GkdMethod(recipe, state, policy_of(state), records.rendered, teaching, samples=own)


TAUGHT: Mapping[Family, TaughtBuilder] = {"distil": _distil, "gkd": _gkd}


def _policy_gradient(
    state: TrainState,
    recipe: PolicyRecipe,
    reference: Reference | None,
    teaching: Teaching | None,
    world: World,
) -> Learner:
    taught = None
    if isinstance(recipe, TaughtRecipe):
        assert teaching is not None
        taught = taught_of(recipe, teaching)
    policy = policy_of(state)
    return PolicyGradient(recipe, state, policy, reference, world=world, taught=taught)


def _online_dpo(
    state: TrainState,
    recipe: OnlineDpoRecipe,
    reference: Reference | None,
    teaching: Teaching | None,
    world: World,
) -> Learner:
    assert reference is not None
    return OnlineDpo(recipe, state, policy_of(state), reference, world=world)


def _raft(
    state: TrainState,
    recipe: RaftRecipe,
    reference: Reference | None,
    teaching: Teaching | None,
    world: World,
) -> Learner:
    return Raft(recipe, state, policy_of(state), world=world)


ONLINE: Mapping[Family, OnlineBuilder] = {
    "policy_gradient": _policy_gradient,
    "online_dpo": _online_dpo,
    "raft": _raft,
}


def offline_method(
    state: TrainState,
    recipe: Offline,
    cache: ReferenceCache,
    records: MethodRecords,
    world: World,
    teaching: Teaching | None = None,
) -> OfflineMethod:
    """The recipe's method over these records. Held-out ones are measured by its own loss alone."""
    family = method_of(recipe).family
    if teaching is None:
        method = OFFLINE[family](state, recipe, cache, records, world)
    else:
        method = TAUGHT[family](state, recipe, teaching, records, cache.folder, world)
    balance = None if records.prefix else _balance(state, recipe, world)
    return method if balance is None else BalancedRecords(method, balance)


def learner_of(
    state: TrainState,
    recipe: Online,
    reference: Reference | None,
    world: World,
    teaching: Teaching | None = None,
) -> Learner:
    """Who learns from the groups of a recipe's rollouts."""
    learner = ONLINE[method_of(recipe).family](state, recipe, reference, teaching, world)
    balance = _balance(state, recipe, world)
    return learner if balance is None else BalancedLearner(learner, balance)


def _balance(state: TrainState, recipe: Recipe, world: World) -> Balance | None:
    """What evens out the load of a mixture's experts, where the recipe asks for it."""
    coefficient = recipe.model.router_aux_loss_coef
    return None if coefficient is None else Balance(policy_of(state), coefficient, world)


def compares_with_reference(recipe: Online) -> bool:
    """Whether an online method needs the starting model beside the policy."""
    row = method_of(recipe)
    return row.reference or (isinstance(recipe, PolicyRecipe) and loss_of(recipe).beta > 0)


def policy_of(state: TrainState) -> Policy:
    """The network of a run that trains a language model."""
    assert isinstance(state.network, Policy)
    return state.network
