"""Gives an engine the weights of the policy that is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from strop.engines.engine import Engine
from strop.model.network import Policy


class Publisher:
    """Publishes a policy to an engine whenever it was updated since the last time.

    `updates` counts the policy's updates; a count that went back (a checkpoint was loaded) is
    another state, too. `version` is the engine's number of what it has, 0 before the first time.
    """

    def __init__(self, policy: Policy, engine: Engine, updates: Callable[[], int]) -> None:
        self.policy, self.engine, self.updates = policy, engine, updates
        self.version = 0
        self._published: int | None = None

    def publish(self) -> int:
        """The version that the engine has now; nothing is sent where these are its weights
        already."""
        now = self.updates()
        if now != self._published:
            self.version = self.engine.publish(weights_of(self.policy))
            self._published = now
        return self.version


def weights_of(policy: Policy) -> Mapping[str, torch.Tensor]:
    """The network's own parameters by name."""
    return dict(policy.model.named_parameters())
