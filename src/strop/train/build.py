"""From a prepared run to the loop that trains it: networks, references, learners."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from strop.engines.local import LocalSampler
from strop.model.arithmetic import Precision
from strop.model.load import critic_recipe, load_policy, load_scalar, weights_hash
from strop.model.network import Policy, ScalarNetwork, switch_off_dropout
from strop.model.reference import Reference
from strop.recipe.train.methods import Offline, Online, Recipe
from strop.recipe.train.model import ModelRecipe
from strop.recipe.train.offline import (
    CptRecipe,
    PairRecipe,
    RewardModelRecipe,
    SftRecipe,
    UnpairedRecipe,
)
from strop.recipe.train.online import BestOfRecipe, OnlineRecipe, OwnPairsRecipe, PpoRecipe
from strop.text.trees import Rendered
from strop.train.loop.offline import OfflineMethod, OfflineParts, train_offline
from strop.train.loop.online import Learner, OnlineParts, sampling_of, train_online
from strop.train.loop.optim import build_optimizer
from strop.train.loop.step import Critic, TrainState
from strop.train.methods.own_samples import BestOf, OwnPairs
from strop.train.methods.pairs import PairMethod, PairRule, needs_reference, reference_read
from strop.train.methods.policy_gradient import PolicyGradient, method_of
from strop.train.methods.reference import reference_scores, trees_hash
from strop.train.methods.reward_model import RewardModelMethod
from strop.train.methods.supervised import LOSSES, SupervisedMethod
from strop.train.methods.unpaired import Mismatched, UnpairedMethod, branch_sums, mismatched
from strop.train.preflight.prepare import Prepared, expect_margins
from strop.train.preflight.selfcheck import sampler_mismatch
from strop.types import Feedback, StepRecord, TokenScores, Tree

Loop = tuple[Iterator[StepRecord], dict[str, Any]]
"""The steps still to do, and the checks made on the way."""


def build_state(recipe: Recipe, start: ModelRecipe, *, muon: Precision = "bfloat16") -> TrainState:
    """The networks a run trains, from `start` (the recipe's model, or an adapter's base)."""
    network: Policy | ScalarNetwork
    if isinstance(recipe, RewardModelRecipe):
        network = load_scalar(start, recipe.template, seed=recipe.seed)
    else:
        network = load_policy(start, recipe.template, seed=recipe.seed)
    if not isinstance(recipe, CptRecipe | SftRecipe | RewardModelRecipe):
        # log-probs are compared with older or reference ones: both have to be the model's own
        switch_off_dropout(network.model)
    state = TrainState(network, build_optimizer(network, recipe.optim, muon=muon))
    if isinstance(recipe, PpoRecipe) and recipe.value is not None:
        critic = load_scalar(
            critic_recipe(recipe.value.path, recipe.value.lora, recipe.model),
            recipe.template,
            seed=recipe.seed + 1,
        )
        switch_off_dropout(critic.model)
        scale = recipe.value.learning_rate / recipe.optim.learning_rate
        optim = recipe.optim.model_copy(update={"optimizer": "adamw"})
        state.critic = Critic(critic, build_optimizer(critic, optim), scale)
    return state


def build_loop(state: TrainState, recipe: Recipe, prepared: Prepared) -> Loop:
    """The loop over the steps still to do; made before a checkpoint's weights are put in place, so
    that references are those of the starting model."""
    if isinstance(recipe, OnlineRecipe):
        return _online(state, recipe, prepared)
    return _offline(state, recipe, prepared)


def _online(state: TrainState, recipe: Online, prepared: Prepared) -> Loop:
    assert isinstance(state.network, Policy)
    assert prepared.reward is not None
    policy = state.network
    sampler = LocalSampler(policy.model, policy.tokenizer, arithmetic=policy.arithmetic)
    mismatch = sampler_mismatch(
        policy,
        sampler,
        prepared.tasks,
        sampling_of(recipe),
        seed=recipe.seed,
        limit=recipe.rollout.mismatch_limit,
    )
    learner: Learner
    reference = None
    if isinstance(recipe, BestOfRecipe):
        learner = BestOf(recipe, state, policy)
    elif isinstance(recipe, OwnPairsRecipe):
        reference = Reference(policy)
        learner = OwnPairs(recipe, state, policy, reference)
    else:
        reference = Reference(policy) if method_of(recipe).beta > 0 else None
        learner = PolicyGradient(recipe, state, policy, reference)
    if not isinstance(recipe, BestOfRecipe) and recipe.objective.refresh_every:
        state.reference = reference
    parts = OnlineParts(
        tasks=prepared.tasks,
        mix=prepared.mix,
        total=prepared.total_steps,
        sampler=sampler,
        reward=prepared.reward,
        learner=learner,
        reference=reference,
        replay=_replay(policy, recipe, prepared),
        held_out=prepared.held_out,
    )
    return train_online(state, recipe, parts), {**prepared.checks, "sampler_mismatch": mismatch}


@dataclass(frozen=True, slots=True)
class Records:
    """What a method is made for: rendered records. `prefix` names the cached files, `visited` the
    records that some step looks at (None: all)."""

    rendered: Rendered
    prefix: str
    visited: Sequence[int] | None


Build = Callable[[Records], OfflineMethod]


def _offline(state: TrainState, recipe: Offline, prepared: Prepared) -> Loop:
    assert prepared.rendered is not None
    build = _builder(state, recipe, prepared.folder)
    held_out = None
    if prepared.eval_rendered is not None:
        held_out = build(Records(prepared.eval_rendered, "eval_", None))
    parts = OfflineParts(
        method=build(Records(prepared.rendered, "", _visited(prepared))),
        rendered=prepared.rendered,
        mix=prepared.mix,
        total=prepared.total_steps,
        replay=_replay(state.network, recipe, prepared),
        held_out=held_out,
    )
    return train_offline(state, recipe, parts), prepared.checks


def _builder(state: TrainState, recipe: Offline, folder: Path) -> Build:
    """How the recipe's method is made, for its own records and for held-out ones."""
    if isinstance(recipe, RewardModelRecipe):
        return lambda records: _reward_model(state, recipe, records)
    policy = state.network
    assert isinstance(policy, Policy)
    if isinstance(recipe, CptRecipe | SftRecipe):
        max_tokens, loss = recipe.run.micro_batch_tokens, LOSSES[recipe.method]
        return lambda records: SupervisedMethod(
            policy, records.rendered.trees, max_tokens, loss=loss
        )
    cache = ReferenceCache(policy, recipe, folder)
    if isinstance(recipe, UnpairedRecipe):
        return lambda records: _unpaired(policy, recipe, cache, records)
    return lambda records: _pairs(state, policy, recipe, cache, records)


def _reward_model(
    state: TrainState, recipe: RewardModelRecipe, records: Records
) -> RewardModelMethod:
    assert isinstance(state.network, ScalarNetwork)
    margins = None
    if recipe.objective.margin is not None:
        margins = torch.tensor(expect_margins(records.rendered, recipe.objective.margin))
    return RewardModelMethod(recipe, state.network, records.rendered.trees, margins)


def _pairs(
    state: TrainState, policy: Policy, recipe: PairRecipe, cache: ReferenceCache, records: Records
) -> PairMethod:
    trees = records.rendered.trees
    ref_B2 = None
    if needs_reference(recipe.objective):
        ref_B2 = cache.scores(trees, reference_read(recipe.objective), records, "reference")
    rule = PairRule(recipe.method, recipe.objective)
    max_tokens = recipe.run.micro_batch_tokens
    return PairMethod(rule, max_tokens, policy, trees, ref_B2, state.running)


def _unpaired(
    policy: Policy, recipe: UnpairedRecipe, cache: ReferenceCache, records: Records
) -> UnpairedMethod:
    rendered = records.rendered
    labels = [record.label for record in rendered.records if isinstance(record, Feedback)]
    ref_R = cache.scores(rendered.trees, branch_sums, records, "reference")
    others = None
    if recipe.method == "kto":
        trees = mismatched(rendered.trees, recipe.seed, recipe.text.max_length)
        ref_other_R = cache.scores(trees, branch_sums, records, "reference_mismatched")
        others = Mismatched(trees, ref_other_R)
    return UnpairedMethod(recipe, policy, rendered.trees, torch.tensor(labels), ref_R, others)


class ReferenceCache:
    """Reference log-probs of a run's records, computed before step 1, kept in its folder."""

    def __init__(self, policy: Policy, recipe: PairRecipe | UnpairedRecipe, folder: Path) -> None:
        self.policy, self.recipe, self.folder = policy, recipe, folder
        self.model = weights_hash(recipe.model.path)

    def scores(
        self,
        trees: Sequence[Tree],
        read: Callable[[TokenScores], torch.Tensor],
        records: Records,
        name: str,
    ) -> torch.Tensor:
        """`read` of every branch of `trees`; records that no step visits are left at NaN."""
        recipe = self.recipe
        chosen = range(len(trees)) if records.visited is None else records.visited
        read_trees = [trees[i] for i in chosen]
        precision = f"{recipe.model.dtype}/{recipe.model.quantize}"
        found = reference_scores(
            self.policy,
            read_trees,
            read,
            path=self.folder / f"{records.prefix}{name}.safetensors",
            key=f"{self.model}/{precision}/{recipe.objective}/{trees_hash(read_trees)}",
            max_tokens=recipe.run.micro_batch_tokens,
        )
        branches = len(trees[0].branches)
        scores = torch.full((len(trees), branches, *found.shape[1:]), float("nan"))
        scores[list(chosen)] = found.view(-1, branches, *found.shape[1:])
        return scores.flatten(0, 1)


def _visited(prepared: Prepared) -> list[int]:
    """The method's own records that some step of the run looks at."""
    steps = range(prepared.total_steps)
    return sorted({i for step in steps for i in prepared.mix.draw(step).own})


def _replay(network: Any, recipe: Recipe, prepared: Prepared) -> SupervisedMethod | None:
    if prepared.replay is None:
        return None
    return SupervisedMethod(
        network, prepared.replay.trees, recipe.run.micro_batch_tokens, prefix="replay/"
    )
