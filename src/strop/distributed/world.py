"""The processes that train one model together; one process is a world of one.

A step's counts, the whole-batch statistics of its loss, its gradients and its metrics all go
through the world, so they are the same for any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from strop.losses.metrics import Metric

Counts = Mapping[str, float]
"""A process's counts of a step: `{"tokens": 210, "records": 4}`. Counts of processes add up."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Gathered:
    """The values of all processes end to end, and which of them are this process's:
    `Gathered(tensor([0.1, 0.4, 0.3]), slice(2, 3))`."""

    values_N: torch.Tensor
    own: slice


class World(Protocol):
    """Sums and values over all processes. Every process makes the same calls in the same order.

    `rank` numbers this process among `size`; rank 0 speaks to the terminal and writes the files.
    The processes of a tensor group compute each forward together, so they share a data rank: they
    read the same records and draw the same answers. Without such groups it is the rank.
    """

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def data_rank(self) -> int: ...

    @property
    def data_size(self) -> int: ...

    @property
    def leads(self) -> bool:
        """Whether this process is the first of its tensor group."""

    @property
    def waited(self) -> float:
        """Seconds that this process has spent in exchanges, most of it waiting for the others."""

    def exchanged(self, value: T) -> list[T]:
        """What every process gave, by rank."""

    def by_data_rank(self, value: T) -> list[T]:
        """What every data rank gave, in order: of a tensor group, its first process."""

    def first(self, make: Callable[[], T]) -> T:
        """What `make` returns on rank 0, for all; it is called nowhere else."""

    def first_group(self, make: Callable[[], T]) -> T:
        """What `make`, which computes forwards, returns on data rank 0, for all."""

    def together(self) -> AbstractContextManager[None]:
        """An error in the block ends it on all processes: the others raise `OtherProcessError`, and
        of processes that raise the same one, only rank 0 raises it as it is."""

    def total(self, counts: Counts) -> Counts:
        """The sum of each count over the data ranks."""

    def gathered(self, values_N: torch.Tensor) -> Gathered:
        """The values of all data ranks, in their order; without a gradient."""

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up each parameter's gradient over the data ranks, in place."""

    def merged(self, metrics: Mapping[str, Metric]) -> dict[str, Metric]:
        """The metrics of all data ranks as one."""

    def in_groups(self, tensor: int) -> World:
        """The same processes, of which every `tensor` in a row are a tensor group."""


class Alone:
    """A world of one process."""

    rank, size, data_rank, data_size, leads, waited = 0, 1, 0, 1, True, 0.0

    def exchanged(self, value: T) -> list[T]:
        return [value]

    def by_data_rank(self, value: T) -> list[T]:
        return [value]

    def first(self, make: Callable[[], T]) -> T:
        return make()

    def first_group(self, make: Callable[[], T]) -> T:
        return make()

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def total(self, counts: Counts) -> Counts:
        return counts

    def gathered(self, values_N: torch.Tensor) -> Gathered:
        return Gathered(values_N.detach(), slice(0, len(values_N)))

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """There is nothing to add."""

    def merged(self, metrics: Mapping[str, Metric]) -> dict[str, Metric]:
        return dict(metrics)

    def in_groups(self, tensor: int) -> World:
        """One process is a group of one."""
        return self


ALONE = Alone()
