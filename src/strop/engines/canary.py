"""Proof that an engine has the weights that were published to it.

A server that says "success" and goes on sampling from its old weights gives a curve, not an error.
So after every publish the engine scores a fixed text, and its log-probs have to be the trainer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from strop.engines.engine import PromptedTask
from strop.errors import TrainingError
from strop.model.adapters import only_adapter
from strop.model.logprobs import eval_mode
from strop.model.network import Policy
from strop.types import Branch, Tree

MOST_TOKENS = 128
RESOLVED = 4.0
"""A move of the weights is told from the engine's own error where it is so many times as large."""
ROUNDING = 1e-6
"""Nats by which two float32 implementations differ at least."""


@dataclass(frozen=True, slots=True)
class Proof:
    """When an engine was last seen to have new weights: the trainer's log-probs then, and how far
    the engine's were from them (root mean square, nats)."""

    trained_N: torch.Tensor
    error: float


def canary_tree(prompts: Sequence[PromptedTask]) -> Tree:
    """The text: the beginning of the longest of the first prompts, all of whose tokens but the
    first are scored."""
    ids = max((prompt.prompt_ids for prompt in prompts[:8]), key=len)[:MOST_TOKENS]
    if len(ids) < 2:
        ids = (*ids, *ids)
    return Tree(ids[:1], (Branch(ids[1:], (True,) * (len(ids) - 1)),))


class Canary:
    """Compares engines with a policy on one text.

    Args:
        policy: the network that is trained.
        tree: the text.
        limit: nats a token by which engine and trainer may differ in the mean.
    """

    def __init__(self, policy: Policy, tree: Tree, *, limit: float) -> None:
        self.policy, self.tree, self.limit = policy, tree, limit
        self._proofs: dict[str, Proof] = {}

    @torch.no_grad()
    def trained(self) -> torch.Tensor:
        """The trainer's log-probs of the text now, nats, [N]."""
        with self.policy.arithmetic(), eval_mode(self.policy.model):
            return self.policy.score([self.tree]).logprobs_N.double().cpu()

    @torch.no_grad()
    def base(self) -> torch.Tensor:
        """The same of the weights below the policy's adapter."""
        with only_adapter(self.policy.model, None):
            return self.trained()

    def expect_base(
        self, engine: str, said: Sequence[float], base_N: torch.Tensor, weights: str | None
    ) -> None:
        """Raise `TrainingError` where an engine without the adapter is another model than the
        policy without it; `weights` is what the engine calls its own."""
        apart = float((torch.tensor(said, dtype=torch.float64) - base_N).abs().mean())
        if not apart <= self.limit:
            called = "" if weights is None else f" (it calls them {weights!r})"
            raise TrainingError(
                f"the base weights of the server{called} are not the recipe's model: without an "
                f"adapter, too, its log-probs of a fixed text are {apart:.3g} nats a token from "
                f"the trainer's (limit {self.limit:g})",
                where=engine,
                fix="start it anew with model.path of the recipe; a run that trains whole weights "
                "changes those of its servers for good",
            )

    def expect(self, engine: str, said: Sequence[float], trained_N: torch.Tensor) -> None:
        """Raise `TrainingError` unless `engine` said what the trainer says, and not what it said
        before the weights moved.

        As long as the weights move the text less than the engine is wrong by, nothing can be told;
        such moves add up, because the comparison is with the last state that was told apart.
        """
        said_N = torch.tensor(said, dtype=torch.float64)
        error, last = _rms(said_N - trained_N), self._proofs.get(engine)
        moved = 0.0 if last is None else _rms(trained_N - last.trained_N)
        told_apart = last is None or moved > RESOLVED * max(last.error, ROUNDING)
        if last is not None and told_apart and _rms(said_N - last.trained_N) <= error:
            raise TrainingError(
                f"the engine still samples from older weights: the trainer's log-probs of a fixed "
                f"text moved by {moved:.3g} nats a token, the engine's did not",
                where=engine,
                fix="it reported success and changed nothing: use another way of "
                "rollout.engine.sync, or restart it with what docs/engines.md says of it",
            )
        apart = float((said_N - trained_N).abs().mean())
        if not apart <= self.limit:
            raise TrainingError(
                f"after the weights were published, the engine's log-probs of a fixed text are "
                f"{apart:.3g} nats a token from the trainer's (limit {self.limit:g})",
                where=engine,
                fix="start it with the model of the recipe in the same precision; if it was right "
                "before, it did not take the weights",
            )
        if told_apart:
            self._proofs[engine] = Proof(trained_N, error)


def _rms(difference_N: torch.Tensor) -> float:
    return float(difference_N.square().mean().sqrt())
