"""A world of several processes, over torch.distributed."""

from __future__ import annotations

import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch.distributed.tensor import DTensor

from strop.distributed.launch import expect_place, launched
from strop.distributed.world import ALONE, Counts, Gathered, World
from strop.errors import OtherProcessError, StropError
from strop.losses.metrics import Metric, merge

dist: Any = torch.distributed
"""Its type stubs leave out what is used here."""

T = TypeVar("T")

TOLD_WITHIN = 20.0
"""Seconds that a process which failed tries to tell the others why."""

SHARD = "shard"
"""The dimension of a device mesh over which FSDP cuts."""

TOLD_OF_WAITING = 60.0
"""Seconds of waiting for others to come, after which it is said."""

BUCKET = 2**24
"""Elements that are added up over the processes at once."""


@dataclass(frozen=True, slots=True)
class Failed:
    """What another process is told of an error: `Failed("pairs.jsonl:3: ...", 2)`."""

    said: str
    exit_code: int

    @classmethod
    def by(cls, error: BaseException) -> Failed:
        code = error.exit_code if isinstance(error, StropError) else 1
        return cls(str(error) or type(error).__name__, code)


class Processes:
    """This process among those of torch.distributed's default group.

    Tensors on their devices go through that group; all else goes through `control`, over gloo.
    Every `tensor` processes in a row are a tensor group.
    """

    def __init__(self, control: Any, tensor: int = 1) -> None:
        self.rank, self.size = int(dist.get_rank()), int(dist.get_world_size())
        self.data_rank, self.data_size = self.rank // tensor, self.size // tensor
        self.leads = self.rank % tensor == 0
        self._control, self._tensor = control, tensor
        self._alike = _alike(tensor) if tensor > 1 else None
        self.waited = 0.0

    def in_groups(self, tensor: int) -> World:
        return self if tensor == self._tensor else Processes(self._control, tensor)

    def exchanged(self, value: T) -> list[T]:
        """Whatever a process calls, it comes to this: so an error that one of them tells reaches
        the others in whatever they wait for."""
        values: list[Any] = [None] * self.size
        started = time.monotonic()
        with expected_others():
            dist.all_gather_object(values, value, group=self._control)
        self.waited += time.monotonic() - started
        for rank, other in enumerate(values):
            if isinstance(other, Failed) and not isinstance(value, Failed):
                raise OtherProcessError(rank, other.said, other.exit_code)
        return values

    def first(self, make: Callable[[], T]) -> T:
        return self._made_by(self.rank == 0, make)

    def first_group(self, make: Callable[[], T]) -> T:
        return self._made_by(self.data_rank == 0, make)

    def _made_by(self, mine: bool, make: Callable[[], T]) -> T:
        started, before = time.monotonic(), self.waited
        made = make() if mine else None
        told: list[Any] = self.exchanged((made, time.monotonic() - started))
        value, seconds = told[0]
        if not mine:
            # what one process does for all is waited for by design, and makes it no straggler
            self.waited = max(before, self.waited - seconds)
        result: T = value
        return result

    def by_data_rank(self, value: T) -> list[T]:
        return self.exchanged(value)[:: self._tensor]

    @contextmanager
    def together(self) -> Iterator[None]:
        try:
            yield
        except OtherProcessError:
            raise
        except Exception as error:
            failed = Failed.by(error)
            said = self._told(failed)
            if self.rank and said[0] == failed:
                raise OtherProcessError(0, failed.said, failed.exit_code) from error
            raise

    def _told(self, failed: Failed) -> list[Any]:
        """What the others gave while they were told of this process's error; nothing where they
        wait for something else, such as weights, and will see that this process is gone."""
        said: list[Any] = [None]

        def tell() -> None:
            with suppress(OtherProcessError):
                said[:] = self.exchanged(failed)

        telling = threading.Thread(target=tell, daemon=True)
        telling.start()
        telling.join(TOLD_WITHIN)
        return said

    def total(self, counts: Counts) -> Counts:
        every = self.by_data_rank(dict(counts))
        names = dict.fromkeys(name for one in every for name in one)
        return {name: sum(one.get(name, 0.0) for one in every) for name in names}

    def gathered(self, values_N: torch.Tensor) -> Gathered:
        parts = self.by_data_rank(values_N.detach().cpu())
        start = sum(len(part) for part in parts[: self.data_rank])
        values = torch.cat(parts).to(values_N.device)
        return Gathered(values, slice(start, start + len(values_N)))

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """A parameter that no process has a gradient of keeps none, as in a run of one process:
        an optimizer leaves it alone."""
        if self.data_size == 1:
            return
        # of parameters that are sharded, FSDP has added the gradients up in the backward
        mine = [p for p in parameters if not _is_sharded(p)]
        has = self.exchanged([p.grad is not None for p in mine])
        moved = [p for p, *seen in zip(mine, *has, strict=True) if any(seen)]
        for parameter in moved:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        with expected_others():
            for bucket in _buckets([_own(p.grad) for p in moved if p.grad is not None]):
                flat = torch.cat([grad.flatten() for grad in bucket])
                dist.all_reduce(flat, group=self._alike)
                parts = flat.split([grad.numel() for grad in bucket])
                for grad, summed in zip(bucket, parts, strict=True):
                    grad.copy_(summed.view_as(grad))

    def merged(self, metrics: Mapping[str, Metric]) -> dict[str, Metric]:
        merged: dict[str, Metric] = {}
        for one in self.by_data_rank({name: metric.on_host() for name, metric in metrics.items()}):
            merged = merge(merged, one)
        return merged


def _alike(tensor: int) -> Any:
    """The processes that hold the same parts of matrices as this one: one of each tensor group."""
    rank, size = int(dist.get_rank()), int(dist.get_world_size())
    groups = [dist.new_group(range(place, size, tensor)) for place in range(tensor)]
    return groups[rank % tensor]


def _is_sharded(parameter: torch.nn.Parameter) -> bool:
    """Whether data ranks hold a part of it each; a tensor group may cut it as well, or alone."""
    return isinstance(parameter, DTensor) and SHARD in (parameter.device_mesh.mesh_dim_names or ())


def _own(gradient: torch.Tensor) -> torch.Tensor:
    """What this process holds of a gradient, sharing its memory."""
    own: Any = gradient
    part: torch.Tensor = own.to_local() if isinstance(own, DTensor) else own
    return part


def _buckets(gradients: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Gradients of one kind and device, in order, so many at once that few calls are needed."""
    for kind in dict.fromkeys((g.dtype, g.device) for g in gradients):
        bucket: list[torch.Tensor] = []
        for gradient in (g for g in gradients if (g.dtype, g.device) == kind):
            if bucket and sum(g.numel() for g in bucket) + gradient.numel() > BUCKET:
                yield bucket
                bucket = []
            bucket.append(gradient)
        yield bucket


@contextmanager
def expected_others() -> Iterator[None]:
    """Say in one sentence that another process is gone, or does not answer in time."""
    try:
        yield
    except RuntimeError as error:
        raise OtherProcessError(None, _plainly(str(error)), 1) from error


def _plainly(said: str) -> str:
    """What gloo says happened, without the place in its source and its advice."""
    first = re.sub(r"^\[[^\]]*\.cc:\d+\] ", "", said.splitlines()[0] if said else said)
    return first.split(". This is typically")[0]


def join(seconds: float = 1800.0) -> World:
    """The world that the environment names (`NAMES`); this process alone where it names none.

    A process that waits for another longer than `seconds` ends.
    """
    if not launched():
        return ALONE
    expect_place(os.environ)
    waits = timedelta(seconds=seconds)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"

    def meet() -> World:
        with expected_others():
            dist.init_process_group(backend, timeout=waits)
            return Processes(dist.new_group(backend="gloo", timeout=waits))

    return _interruptibly(meet, "{MASTER_ADDR}:{MASTER_PORT}".format_map(os.environ))


def _interruptibly(meet: Callable[[], World], place: str) -> World:
    """Meet the others while this thread waits: it alone sees signals, and torch would keep it from
    them until all have come."""
    met: Future[World] = Future()

    def work() -> None:
        try:
            met.set_result(meet())
        except BaseException as error:  # noqa: BLE001 - the thread that waits has to be told
            met.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    with suppress(TimeoutError):
        return met.result(TOLD_OF_WAITING)
    size = os.environ["WORLD_SIZE"]
    warnings.warn(f"still waiting for all of {size} processes to meet at {place}", stacklevel=3)
    return met.result()


@dataclass(frozen=True, slots=True)
class WritingGroup:
    """All processes of a run once more, with a way to meet that a thread of each can use while
    the run goes on: `WritingGroup(0, processes)`."""

    rank: int
    processes: Any

    @classmethod
    def of(cls, world: World) -> WritingGroup:
        """Every process makes this call."""
        return cls(world.rank, dist.new_group(backend="gloo"))

    def wait(self) -> None:
        """Until all have come here."""
        dist.barrier(group=self.processes)


def leave(world: World) -> None:
    """Part from the other processes, in order."""
    if world.size > 1:
        dist.destroy_process_group()
