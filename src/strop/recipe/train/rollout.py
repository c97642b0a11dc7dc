"""How completions are sampled."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from strop.recipe.base import Strict
from strop.recipe.train.engine import EngineRecipe, LocalEngineRecipe, ServersRecipe
from strop.recipe.train.environment import EnvironmentRecipe
from strop.recipe.train.source import AsynchronousRecipe, SourceRecipe, SynchronousRecipe


class SamplingRecipe(Strict):
    """Temperature 0 is greedy; truncations apply after temperature: top_k, top_p, min_p.

    The text of an answer includes the `stop` string that ended it unless
    `include_stop_str_in_output` is off, and excludes special tokens unless `skip_special_tokens` is
    off.
    """

    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, lt=1)
    max_tokens: int = Field(256, ge=1)
    stop: list[str] = Field(default_factory=list)
    include_stop_str_in_output: bool = True
    skip_special_tokens: bool = True


class MismatchRecipe(Strict):
    """Correction for a sampler whose probabilities differ from the trainer's.

    `level` is the level of the ratio trainer / sampler; a ratio above `cap` is cut to `cap`
    (`truncate`), or its tokens are left out (`mask`, also below `floor`). The run stops once the
    effective sample size falls below `min_ess` (a share of the tokens).
    """

    level: Literal["none", "token", "sequence"] = "none"
    bound: Literal["truncate", "mask"] = "truncate"
    cap: float = Field(2.0, gt=1)
    floor: float | None = Field(None, gt=0, lt=1)
    min_ess: float | None = Field(None, gt=0, lt=1)

    @model_validator(mode="after")
    def _options_are_read(self) -> Self:
        usual = {name: info.default for name, info in type(self).model_fields.items()}
        others = [name for name, value in self if name != "level" and value != usual[name]]
        if self.level == "none" and others:
            raise ValueError(f"level is none, so {others[0]} is not read: set level")
        if self.floor is not None and self.bound == "truncate":
            raise ValueError("floor is only read with bound: mask")
        return self


class CurriculumRecipe(Strict):
    """Tasks are drawn by how often the policy solves them, in place of one pass after another.

    An answer passes with a total of at least `passes`. A task's pass rate is a mean over its
    visits in which older ones count `memory` times as much at each further one. Tasks weigh between
    `floor` (always or never solved) and 1 (solved half of the time). One that was solved whole
    `retire_after` times in a row weighs `floor` until an answer to it fails again.
    """

    passes: float = 1.0
    floor: float = Field(0.1, gt=0, le=1)
    memory: float = Field(0.5, ge=0, lt=1)
    retire_after: int = Field(3, ge=1)


def _weighed_where_stale(given: dict[str, Any]) -> MismatchRecipe:
    """Older weights are other probabilities: truncated importance sampling, token by token."""
    source = given.get("source")
    ahead = isinstance(source, AsynchronousRecipe) and source.max_staleness > 0
    return MismatchRecipe(level="token") if ahead else MismatchRecipe()


class RolloutRecipe(Strict):
    """`group_size` completions for each prompt of a step.

    `mask_truncated` leaves completions that hit `max_tokens` out of the loss and its denominator
    (as those that could not be judged); `resample` is the number of further rounds that replace
    groups whose rewards are all equal by groups of other prompts (DAPO's dynamic sampling);
    `overlong_buffer` is the number of tokens before `max_tokens` over which the reward is lowered
    linearly down to -1 (DAPO's overlong shaping); `mismatch_limit` is the largest mean difference
    between the sampler's and the trainer's log-probs, nats per token, that the self-check before
    step 1 accepts; `parity_every` repeats that comparison every so many steps (0: never). `stop`
    and the two options after it are those of `SamplingRecipe`; `engine` is who samples, `source`
    when. Where a source may be a version or more behind, `mismatch` is token-level truncation
    unless the recipe says otherwise. With `routing_replay` the trainer's forwards take the experts
    that a mixture of experts took while it sampled (R3, arXiv 2510.11370). With an `environment`
    every answer is an episode of several turns, of `max_tokens` tokens each. A `curriculum` draws
    tasks by how often they are solved.
    """

    environment: EnvironmentRecipe | None = None
    group_size: int = Field(8, ge=1)
    temperature: float = Field(1.0, gt=0)
    max_tokens: int = Field(256, ge=1)
    stop: list[str] = Field(default_factory=list)
    include_stop_str_in_output: bool = True
    skip_special_tokens: bool = True
    mask_truncated: bool = False
    resample: int = Field(0, ge=0)
    overlong_buffer: int = Field(0, ge=0)
    mismatch_limit: float = Field(0.05, gt=0)
    parity_every: int = Field(0, ge=0)
    routing_replay: bool = False
    curriculum: CurriculumRecipe | None = None
    engine: EngineRecipe = LocalEngineRecipe()
    source: SourceRecipe = SynchronousRecipe()
    mismatch: MismatchRecipe = Field(default_factory=_weighed_where_stale)

    @property
    def longest(self) -> int:
        """Tokens that an answer may have."""
        world = self.environment
        if world is None:
            return self.max_tokens
        turns = world.max_turns * self.max_tokens
        return turns if world.max_episode_tokens is None else min(turns, world.max_episode_tokens)

    @property
    def credits_turns(self) -> bool:
        """Whether every turn of an episode has an advantage of its own."""
        return self.environment is not None and self.environment.credit == "turn"

    @model_validator(mode="after")
    def _episodes_read_it(self) -> Self:
        if self.environment is None:
            return self
        if self.routing_replay:
            raise ValueError("routing_replay is not read with an environment: drop it")
        if self.overlong_buffer:
            raise ValueError(
                "overlong_buffer shapes single answers, and an episode has several: set it to 0"
            )
        return self

    @model_validator(mode="after")
    def _shared_weights_stand_still(self) -> Self:
        """The trainer's own tensors are read where they lie, so that they may not change while
        somebody samples."""
        shares = isinstance(self.engine, ServersRecipe) and self.engine.sync == "ipc"
        if shares and isinstance(self.source, AsynchronousRecipe):
            raise ValueError(
                "engine.sync is ipc, which shares the weights that the trainer updates, and the "
                "source samples meanwhile: drop source, or set engine.sync: disk or broadcast"
            )
        return self


FURTHER_ROUNDS = 9
"""The papers draw prompts until a step is full of groups with unequal rewards; ten rounds in all
bound the cost of a step."""


def _last_fifth(given: dict[str, Any]) -> int:
    """The paper shapes the last 4,096 of 20,480 tokens (arXiv 2503.14476, section 4.1)."""
    return 0 if given.get("environment") else int(given["max_tokens"]) // 5


class CispoRollout(RolloutRecipe):
    """MiniMax-M1 (arXiv 2506.13585, section 3.1) takes dynamic sampling and the length penalty from
    DAPO."""

    resample: int = Field(FURTHER_ROUNDS, ge=0)
    overlong_buffer: int = Field(default_factory=_last_fifth, ge=0)


class DapoRollout(CispoRollout):
    """DAPO (arXiv 2503.14476): dynamic sampling (section 3.2), truncated answers left out of the
    loss and overlong ones shaped (section 3.4)."""

    mask_truncated: bool = True


class UngroupedRollout(RolloutRecipe):
    """Methods whose advantages need no group draw one answer per prompt: PPO as in InstructGPT
    (arXiv 2203.02155), REINFORCE++ (arXiv 2501.03262)."""

    group_size: int = Field(1, ge=1)


class MinillmRollout(RolloutRecipe):
    """MiniLLM (arXiv 2306.08543) weighs each token by student / sampler, because answers are drawn
    from the student mixed with its teacher (section 2.2)."""

    group_size: int = Field(1, ge=1)
    mismatch: MismatchRecipe = MismatchRecipe(level="token")


class UnweighedRollout(RolloutRecipe):
    """Methods that imitate or compare answers have no importance ratio to weigh: RAFT, online
    DPO."""

    mismatch: MismatchRecipe = MismatchRecipe()
