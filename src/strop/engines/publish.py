"""Gives an engine the weights of the policy that is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from strop.engines.engine import RolloutEngine
from strop.model.network import Policy


class Publisher:
    """Publishes a policy to an engine whenever it was updated since the last time.

    `state` names the policy's weights: it is another one after every update, and after a checkpoint
    was loaded. `version` is the engine's number of what it has, 0 before the first time.
    """

    def __init__(self, policy: Policy, engine: RolloutEngine, state: Callable[[], object]) -> None:
        self.policy, self.engine, self.state = policy, engine, state
        self.version = 0
        self._published: object = None

    @property
    def current(self) -> int:
        """The version that the policy's weights have, or will have once they are published."""
        return self.version + (self.state() != self._published)

    def publish(self) -> int:
        """The version that the engine has now; nothing is sent where these are its weights
        already."""
        now = self.state()
        if now != self._published:
            self.version = self.engine.publish(weights_of(self.policy))
            self._published = now
        return self.version


def weights_of(policy: Policy) -> Mapping[str, torch.Tensor]:
    """The network's own parameters by name."""
    return dict(policy.model.named_parameters())
