"""Log-probs of an earlier state of the policy, without a second model.

Only trained weights are stored: for an adapter that is the adapter, so the reference costs next to
nothing; for a full fine-tune it is one copy of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from strop.model.logprobs import Head, eval_mode
from strop.model.network import Policy
from strop.model.sharding import own_part, part_like
from strop.tracking.phases import phase
from strop.types import TokenScores, Tree


class Reference:
    """Scores trees with the policy's weights of when this object was made or last refreshed."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.weights = [p.detach().clone() for p in policy.trainable()]

    def refresh(self) -> None:
        """Make the policy's current weights the reference."""
        for kept, trained in zip(self.weights, self.policy.trainable(), strict=True):
            kept.copy_(trained.detach())

    @torch.no_grad()
    def scores(self, trees: Sequence[Tree], *, temperature: float = 1.0) -> TokenScores:
        """The reference's scores of the supervised tokens of `trees`, without dropout."""
        earlier = self.in_place()
        with phase("forward"), eval_mode(self.policy.model), earlier, self.policy.arithmetic():
            return self.policy.score(trees, Head(temperature=temperature))

    def tensors(self) -> dict[str, torch.Tensor]:
        """The stored weights by their number among the trained ones, for a checkpoint."""
        return {str(number): tensor for number, tensor in enumerate(self.weights)}

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """The inverse of `tensors`."""
        for number, tensor in tensors.items():
            kept = self.weights[int(number)]
            kept.copy_(part_like(tensor, kept))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the stored weights into the model for the duration."""
        trained = self.policy.trainable()
        if self.policy.is_sharded:
            with _swapped(trained, self.weights):
                yield
            return
        current = [p.data for p in trained]
        for parameter, kept in zip(trained, self.weights, strict=True):
            parameter.data = kept
        try:
            yield
        finally:
            for parameter, data in zip(trained, current, strict=True):
                parameter.data = data


@contextmanager
def _swapped(trained: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]) -> Iterator[None]:
    """Exchange the contents of this process's parts for the duration: FSDP reads them where they
    lie, so they cannot be replaced."""
    pairs = [(own_part(t), own_part(w)) for t, w in zip(trained, weights, strict=True)]
    current = [part.clone() for part, _ in pairs]
    for part, kept in pairs:
        part.copy_(kept)
    try:
        yield
    finally:
        for (part, _), before in zip(pairs, current, strict=True):
            part.copy_(before)
