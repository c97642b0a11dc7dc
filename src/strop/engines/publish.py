"""Gives an engine the weights of the policy that is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from strop.engines.engine import Engine
from strop.model.network import Policy


class Publisher:
    """Publishes a policy to an engine whenever it was updated since the last time.

    `updates` counts the policy's updates; a count that went back (a checkpoint was loaded) is
    another state, too.
    """

    def __init__(self, policy: Policy, engine: Engine, updates: Callable[[], int]) -> None:
        self.policy, self.engine, self.updates = policy, engine, updates
        self._published: int | None = None

    def publish(self) -> None:
        """Nothing is sent where the engine has these weights already."""
        now = self.updates()
        if now != self._published:
            self.engine.publish(weights_of(self.policy))
            self._published = now


def weights_of(policy: Policy) -> Mapping[str, torch.Tensor]:
    """The network's own parameters by name."""
    return dict(policy.model.named_parameters())
