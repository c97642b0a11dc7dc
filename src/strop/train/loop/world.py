"""The processes that train one model together; one process is a world of one.

A step's counts, the whole-batch statistics of its loss, its gradients and its metrics all go
through the world, so they are the same for any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from strop.losses.metrics import Metric

Counts = Mapping[str, float]
"""A process's counts of a step: `{"tokens": 210, "records": 4}`. Counts of processes add up."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """The values of all processes end to end, and which of them are this process's:
    `Gathered(tensor([0.1, 0.4, 0.3]), slice(2, 3))`."""

    values_N: torch.Tensor
    own: slice


class World(Protocol):
    """Sums and values over all processes. Every process makes the same calls in the same order."""

    def total(self, counts: Counts) -> Counts:
        """The sum of each count over the processes."""

    def gathered(self, values_N: torch.Tensor) -> Gathered:
        """The values of all processes, in the order of their ranks; without a gradient."""

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up each parameter's gradient over the processes, in place."""

    def merged(self, metrics: Mapping[str, Metric]) -> dict[str, Metric]:
        """The metrics of all processes as one."""


class Alone:
    """A world of one process."""

    def total(self, counts: Counts) -> Counts:
        return counts

    def gathered(self, values_N: torch.Tensor) -> Gathered:
        return Gathered(values_N.detach(), slice(0, len(values_N)))

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """There is nothing to add."""

    def merged(self, metrics: Mapping[str, Metric]) -> dict[str, Metric]:
        return dict(metrics)


ALONE = Alone()
