"""From a prepared run to the loop that trains it: networks, references, methods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from strop.distributed.world import ALONE, World
from strop.engines.engine import Engine, RolloutEngine, sampling_of
from strop.engines.local.engine import LocalEngine
from strop.engines.local.mixed import MixedEngine, Mixing
from strop.engines.publish import Publisher
from strop.engines.served.build import served_engine, shared_engine
from strop.engines.served.engine import ServedEngine
from strop.engines.served.expect import context_of, expect_routes, expect_servers
from strop.engines.served.server import About
from strop.engines.served.shared import SharedEngine
from strop.engines.served.start import started_vllm
from strop.errors import UsageError
from strop.model.arithmetic import Precision
from strop.model.load import critic_recipe, load_policy, load_scalar, pick_device
from strop.model.logprobs import bare, compile_layers
from strop.model.network import Policy, switch_off_dropout
from strop.model.reference import Reference
from strop.model.sharding import Cut, mesh_of, whole_weights
from strop.model.teacher import LocalTeacher
from strop.model.tensor_parallel import divide
from strop.recipe.train.distillation import TaughtRecipe
from strop.recipe.train.engine import LocalEngineRecipe, ServedRecipe, VllmRecipe
from strop.recipe.train.methods import Recipe, method_of
from strop.recipe.train.model import ModelRecipe
from strop.recipe.train.source import AsynchronousRecipe
from strop.rollout.asynchronous import AsynchronousSource
from strop.rollout.led import LedSource
from strop.rollout.play import Player
from strop.rollout.source import RolloutSource, SynchronousSource
from strop.train.loop.micro_batches import forward_tokens
from strop.train.loop.offline import OfflineParts, Replay, train_offline
from strop.train.loop.online import OnlineParts, train_online
from strop.train.loop.optim import build_optimizer
from strop.train.loop.parity import Parity, expect_parity
from strop.train.loop.state import Critic, TrainState
from strop.train.methods.reference import Indices, MethodRecords, ReferenceCache
from strop.train.methods.supervised import SupervisedMethod
from strop.train.methods.table import (
    compares_with_reference,
    learner_of,
    offline_method,
    policy_of,
)
from strop.train.preflight.prepared import Prepared, PreparedOffline, PreparedOnline
from strop.train.teachers.build import Teaching, teaching_of
from strop.types import StepRecord

WEIGHTS = "engine"
"""Where in a run's folder the weights stand that servers read."""
LOG = "vllm.log"
"""Where in a run's folder the server writes that strop starts."""

Loop = tuple[Iterator[StepRecord], dict[str, Any]]
"""The remaining steps, and the checks made while the loop was built."""


def build_state(
    recipe: Recipe, start: ModelRecipe, *, muon: Precision = "bfloat16", world: World = ALONE
) -> TrainState:
    """The networks a run trains, from `start` (the recipe's model, or an adapter's base); of those
    that are sharded, this process's part."""
    method, distributed = method_of(recipe), recipe.run.distributed
    load = load_scalar if method.scalar_head else load_policy
    mesh = cut = None
    if distributed.cuts:
        mesh = mesh_of(distributed, world.size, pick_device(start.device))
        if distributed.tensor == 1:  # parts of matrices are made of whole ones
            cut = Cut(mesh, distributed.cpu_offload)
    network = load(_placed(start, recipe), recipe.template, seed=recipe.seed, cut=cut)
    if method.compares_logprobs:
        switch_off_dropout(network.model)
    if mesh is not None and cut is None:
        divide(network, distributed, mesh)
    if recipe.run.compile:
        compile_layers(network.score, bare(network.model))
    state = TrainState(network, build_optimizer(network, recipe.optim, muon=muon))
    if recipe.critic is not None:
        critic = load_scalar(
            critic_recipe(recipe.critic.path, recipe.critic.lora, _placed(recipe.model, recipe)),
            recipe.template,
            seed=recipe.seed + 1,
            cut=cut,
        )
        switch_off_dropout(critic.model)
        if mesh is not None and cut is None:
            divide(critic, distributed, mesh)
        if recipe.run.compile:
            compile_layers(critic.score, bare(critic.model))
        scale = recipe.critic.learning_rate / recipe.optim.learning_rate
        optim = recipe.optim
        if optim.optimizer == "muon":  # which takes matrices of the policy alone
            optim = optim.model_copy(update={"optimizer": "adamw"})
        state.critic = Critic(critic, build_optimizer(critic, optim), scale)
    return state


def _placed(model: ModelRecipe, recipe: Recipe) -> ModelRecipe:
    """The model, read into host memory if its matrices are cut: each layer goes to its device after
    that."""
    divided = recipe.run.distributed.tensor > 1
    return model.model_copy(update={"device": "cpu"}) if divided else model


def build_loop(
    state: TrainState,
    prepared: Prepared,
    engine: Engine | None = None,
    world: World = ALONE,
    *,
    ends: ExitStack | None = None,
    teaching: Teaching | None = None,
) -> Loop:
    """The loop over the remaining steps. Call it before a checkpoint's weights are loaded:
    references have to come from the starting model. `engine` samples in place of the embedded
    one. `ends` is given what has to be done when the run ends, in whatever way. `teaching` is the
    recipe's teacher, which is loaded where it has one and none is given."""
    if teaching is None and prepared.recipe.taught_by is not None:
        teaching = teaching_of(prepared.recipe, policy_of(state))
    if isinstance(prepared, PreparedOnline):
        return _online(state, prepared, engine, world, ends or ExitStack(), teaching)
    assert isinstance(prepared, PreparedOffline)
    return _offline(state, prepared, world, teaching)


def _online(
    state: TrainState,
    prepared: PreparedOnline,
    engine: Engine | None,
    world: World,
    ends: ExitStack,
    teaching: Teaching | None,
) -> Loop:
    policy, recipe = policy_of(state), prepared.recipe
    given = _mixed_with(teaching, policy, prepared, engine)
    if given is None:
        given = _engine_of(policy, prepared, engine, ends, world)
    checks = prepared.checks
    if not isinstance(given, LocalEngine) or engine is not None:
        checks = {**checks, "engine": given.identity()}
    publisher = Publisher(policy, given, lambda: (state.updates()[0], state.loaded))
    sampling = replace(sampling_of(recipe.rollout), routes=recipe.rollout.routing_replay)
    parity = Parity(
        policy, given, prepared.tasks, sampling, recipe.seed, publish=publisher.publish, world=world
    )
    # servers get the weights gathered; an engine in this process samples from the policy's own
    whole = nullcontext if isinstance(given, SharedEngine) else partial(whole_weights, policy)
    with whole():
        mismatch = expect_parity(parity, limit=recipe.rollout.mismatch_limit)
    player = _player(prepared, given, policy, ends, world)
    reference = Reference(policy) if compares_with_reference(recipe) else None
    if recipe.refresh_every:
        state.reference = reference
    source = _source_of(prepared, given, player, publisher, ends, world)
    state.rollouts = source
    parts = OnlineParts(
        source=source,
        mixture=prepared.mixture,
        total=prepared.total_steps,
        learner=learner_of(state, recipe, reference, world, teaching),
        reference=reference,
        replay=_replay(state, prepared),
        held_out=prepared.held_out,
        world=world,
        parity=parity,
        sampling=whole,
    )
    return train_online(state, recipe, parts), {**checks, **mismatch}


def _player(
    prepared: PreparedOnline,
    engine: RolloutEngine,
    policy: Policy,
    ends: ExitStack,
    world: World,
) -> Player | None:
    """Who plays the episodes of a recipe with an environment."""
    limits, way = prepared.recipe.rollout.environment, prepared.way
    if limits is None or way is None:
        return None
    alone = world.size == 1 or isinstance(prepared.recipe.rollout.source, AsynchronousRecipe)
    if alone and isinstance(engine, SharedEngine) and engine.leader is not None:
        engine = engine.leader
    if not isinstance(engine, LocalEngine | ServedEngine | SharedEngine):
        raise UsageError(
            "episodes are sampled by the embedded engine, or by the recipe's servers",
            fix="drop `engine`",
        )
    player = Player(engine, way.play(policy.tokenizer, prepared.recipe.text.max_length), limits)
    ends.callback(player.close)
    return player


def _source_of(
    prepared: PreparedOnline,
    engine: RolloutEngine,
    player: Player | None,
    publisher: Publisher,
    ends: ExitStack,
    world: World,
) -> RolloutSource:
    """Who samples when, as the recipe says."""
    recipe, named = prepared.recipe, prepared.recipe.rollout.source
    prompts, mixture, reward = prepared.tasks, prepared.mixture, prepared.reward
    results = None if prepared.way is None else prepared.way.results
    rest = engine.rest if isinstance(engine, SharedEngine) else _stay
    if not isinstance(named, AsynchronousRecipe):
        return SynchronousSource(
            recipe, prompts, mixture, player or engine, reward,
            publish=publisher.publish, rest=rest, world=world, results=results,
        )  # fmt: skip
    if isinstance(engine, SharedEngine) and engine.leader is not None:
        engine = engine.leader  # one process asks, whenever it is time
    source = AsynchronousSource(
        recipe, named, prompts, mixture, player or engine, reward,
        total=prepared.total_steps, publisher=publisher, results=results,
    )  # fmt: skip
    ends.callback(source.close)
    return LedSource(source, publisher, world)


def _stay() -> None:
    """An engine in this process has no memory of its own to give back."""


def _engine_of(
    policy: Policy,
    prepared: PreparedOnline,
    engine: Engine | None,
    ends: ExitStack,
    world: World,
) -> RolloutEngine:
    """The given engine, the recipe's servers (told when the run ends), or the policy itself."""
    recipe = prepared.recipe
    named = recipe.rollout.engine
    if isinstance(named, LocalEngineRecipe):
        return engine or LocalEngine(recipe.model.path, policy)
    asks_alone = isinstance(recipe.rollout.source, AsynchronousRecipe)
    at: ServedRecipe = named
    about, leader = prepared.server, None
    if isinstance(named, VllmRecipe) and named.python is not None:
        at, about = world.first(lambda: _started(named, policy, prepared, ends))
    assert about is not None, "a run whose servers run already was prepared with what they hold"
    if world.rank == 0:
        leader = served_engine(
            at, about, policy, prepared.tasks,
            folder=prepared.folder / WEIGHTS, askers=1 if asks_alone else world.size,
        )  # fmt: skip
        ends.callback(leader.close)
    return shared_engine(at, policy, prepared.tasks, leader, world)


def _mixed_with(
    teaching: Teaching | None, policy: Policy, prepared: PreparedOnline, engine: Engine | None
) -> RolloutEngine | None:
    """The policy mixed with its teacher, where the recipe draws its samples so."""
    recipe = prepared.recipe
    share = recipe.sampler_mix if isinstance(recipe, TaughtRecipe) else 0.0
    if teaching is None or share == 0:
        return None
    teacher = teaching.teacher
    if engine is not None:
        raise UsageError(
            "an engine of your own cannot draw from the student mixed with its teacher",
            fix="set objective.mix to 0, or leave `engine` out",
        )
    assert isinstance(teacher, LocalTeacher)
    temperature = recipe.rollout.temperature
    path = recipe.model.path
    return MixedEngine(Mixing(path, policy, teacher, share=share, temperature=temperature))


def _started(
    named: VllmRecipe, policy: Policy, prepared: PreparedOnline, ends: ExitStack
) -> tuple[VllmRecipe, About]:
    """The server that the recipe lets strop start, looked at as those are that run already."""
    recipe, held_out = prepared.recipe, prepared.held_out
    prompts = (*prepared.tasks, *(() if held_out is None else held_out.tasks))
    tokens, log = recipe.rollout.max_tokens, prepared.folder / LOG
    context = context_of(prompts, tokens)
    routes = recipe.rollout.routing_replay
    start = started_vllm(named, recipe.model, context=context, routes=routes, log=log)
    at = ends.enter_context(start)
    about = expect_servers(at, recipe.model, policy.tokenizer, prompts, answer_tokens=tokens)
    if routes:
        expect_routes(at, prompts[0])
    return at, about


def _offline(
    state: TrainState, prepared: PreparedOffline, world: World, teaching: Teaching | None
) -> Loop:
    recipe = prepared.recipe
    cache = ReferenceCache(prepared.folder, recipe.model.path, world)
    held_out = None
    if prepared.held_out is not None:
        unseen = MethodRecords(prepared.held_out, "eval_", None)
        held_out = offline_method(state, recipe, cache, unseen, world, teaching)
    own = MethodRecords(prepared.rendered, "", partial(_visited, prepared))
    parts = OfflineParts(
        method=offline_method(state, recipe, cache, own, world, teaching),
        rendered=prepared.rendered,
        mixture=prepared.mixture,
        total=prepared.total_steps,
        replay=_replay(state, prepared),
        held_out=held_out,
        world=world,
    )
    return train_offline(state, recipe, parts), prepared.checks


def _visited(prepared: PreparedOffline) -> Indices:
    """The method's own records that some step of the run looks at, in order."""
    looked_at = np.zeros(len(prepared.rendered.trees), dtype=bool)
    for step in range(prepared.total_steps):
        looked_at[list(prepared.mixture.draw(step).own)] = True
    return np.flatnonzero(looked_at)


def _replay(state: TrainState, prepared: Prepared) -> Replay | None:
    if prepared.replay is None:
        return None
    policy = policy_of(state)
    max_tokens = forward_tokens(prepared.recipe.run, policy)
    return SupervisedMethod(policy, prepared.replay.trees, max_tokens, prefix="replay/")
