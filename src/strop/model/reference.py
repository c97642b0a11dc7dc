"""Log-probs of the starting model during an online run.

With an adapter the reference is the same network with the adapter switched off; only a full
fine-tune with a KL term needs a frozen copy.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from strop.model.load import Policy
from strop.model.logprobs import TreeScorer
from strop.types import Tree


class Reference:
    """Scores trees as the policy stood when this object was made."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.frozen: Any = None
        if not policy.is_adapter:
            self.frozen = copy.deepcopy(policy.model).eval().requires_grad_(False)
            self.score = TreeScorer(self.frozen)

    @torch.no_grad()
    def logprobs(self, trees: Sequence[Tree], *, temperature: float) -> torch.Tensor:
        """Log-probs of the supervised tokens of `trees`, shape [N]."""
        with self.policy.arithmetic():
            if self.frozen is not None:
                return self.score(trees, temperature=temperature).logprobs_N
            model = self.policy.model
            training = model.training
            model.eval()
            with model.disable_adapter():
                logprobs_N = self.policy.score(trees, temperature=temperature).logprobs_N
            model.train(training)
            return logprobs_N
