"""Whether the engine samples from what the trainer computes: both on the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from strop.distributed.deal import share_of
from strop.distributed.world import ALONE, World
from strop.engines.draws import DrawKey
from strop.engines.engine import (
    PromptedTask,
    RolloutEngine,
    Sampling,
    in_groups,
    requests_of,
)
from strop.errors import TrainingError
from strop.model.logprobs import Head, eval_mode
from strop.model.network import Policy
from strop.rollout.routed import routed_tree
from strop.types import TokenScores, Tree, trainable

PROBED = 4
"""Prompts that the two are compared on."""


@dataclass(frozen=True, slots=True)
class Apart:
    """How far the engine's log-probs are from the trainer's: `Apart(mean=2e-7, worst=9e-7,
    ess=1.0)`, nats a token.

    `ess` is what it does to importance ratios: the effective sample size as a share of the tokens,
    (sum w)^2 / (N sum w^2) with w = trainer / engine.
    """

    mean: float
    worst: float
    ess: float

    @classmethod
    def of(cls, trainer_N: torch.Tensor, engine_N: torch.Tensor) -> Apart:
        apart_N = (engine_N.double() - trainer_N.double()).abs()
        weight_N = (trainer_N.double() - engine_N.double()).exp()
        ess = weight_N.sum().square() / (len(weight_N) * weight_N.square().sum())
        return cls(float(apart_N.mean()), float(apart_N.max()), float(ess))


@dataclass(frozen=True, slots=True)
class Compared:
    """`apart`, with the engine's routes replayed where `unreplayed` says what it is without;
    `rerouted` is the share of (token, layer) that the trainer would route otherwise."""

    apart: Apart
    unreplayed: Apart | None = None
    rerouted: float | None = None

    def metrics(self) -> dict[str, float]:
        found = {"mean": self.apart.mean, "worst": self.apart.worst, "ess": self.apart.ess}
        if self.unreplayed is not None:
            found["unreplayed"] = self.unreplayed.mean
        if self.rerouted is not None:
            found["rerouted"] = self.rerouted
        return {f"parity/{name}": value for name, value in found.items()}


@dataclass(frozen=True, slots=True)
class Parity:
    """Compares an engine with the policy that it was given, on answers to the first few prompts.

    `publish` gives the engine the policy's newest weights. Of several processes each asks for some
    of the answers, and all compare all of them.
    """

    policy: Policy
    engine: RolloutEngine
    prompts: Sequence[PromptedTask]
    sampling: Sampling
    seed: int
    publish: Callable[[], int]
    world: World = ALONE

    @torch.no_grad()
    def measured(self, step: int) -> Compared:
        """On new answers, with the draws of this step."""
        self.publish()
        key = DrawKey(self.seed, "selfcheck", step)
        requests = requests_of(self.prompts[:PROBED], self.sampling, key, 1)
        own = share_of(len(requests), self.world.data_rank, self.world.data_size)
        sampled = in_groups(self.engine.generate(requests[own.start : own.stop]), 1)
        parts = self.world.by_data_rank([trainable(group[0]) for group in sampled])
        answers = [answer for part in parts for answer in part]
        pairs = [
            (one.prompt.prompt_ids, answer) for one, answer in zip(requests, answers, strict=True)
        ]
        said = torch.tensor([x for answer in answers for x in answer.sampler_logprobs()])
        plain = self._scored([Tree(prompt, answer.branches()) for prompt, answer in pairs])
        apart = Apart.of(plain.logprobs_N.cpu(), said)
        if not self.sampling.routes:
            return Compared(apart)
        routed = self._scored([routed_tree(prompt, [answer]) for prompt, answer in pairs])
        rerouted = None if routed.rerouted_T is None else float(routed.rerouted_T.mean())
        return Compared(Apart.of(routed.logprobs_N.cpu(), said), apart, rerouted)

    def _scored(self, trees: Sequence[Tree]) -> TokenScores:
        with self.policy.arithmetic(), eval_mode(self.policy.model):
            return self.policy.score(trees, Head(temperature=self.sampling.temperature))


def expect_parity(parity: Parity, *, limit: float) -> dict[str, float]:
    """What the two differ by before step 1, nats a token in the mean, as checks.

    Raises `TrainingError` above `limit`: the two would disagree about what the policy is, and every
    importance ratio would be wrong.
    """
    found = parity.measured(0)
    if not found.apart.mean <= limit:
        raise TrainingError(
            f"sampler and trainer disagree by {found.apart.mean:.3f} nats per token (limit "
            f"{limit})",
            fix="use the same precision for both, or raise rollout.mismatch_limit if you must",
        )
    checks = {"sampler_mismatch": found.apart.mean}
    if found.unreplayed is not None:
        checks["sampler_mismatch_unreplayed"] = found.unreplayed.mean
    if found.rerouted is not None:
        checks["sampler_rerouted"] = found.rerouted
    return checks
