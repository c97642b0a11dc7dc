"""A teacher on servers that score given tokens: log-probs of what was sampled, no distributions."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from strop.engines.engine import Engine
from strop.types import Tree


class ServedTeacher:
    """A model that an engine scores tokens with, at temperature 1."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def logprobs(self, trees: Sequence[Tree], temperature: float = 1.0) -> torch.Tensor:
        """Log-probs of the supervised tokens, nats, [N]."""
        assert temperature == 1, "servers score at temperature 1"
        if not trees:
            return torch.zeros(0)
        return torch.tensor([x for said in self.engine.score(trees) for x in said])
