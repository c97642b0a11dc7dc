"""Weights from one process to another, without a disk: two processes broadcast tensors (gloo).

Every transfer has a group of its own, of the sender (rank 0) and one receiver (rank 1): a receiver
that dies holds up nobody else, and one that is restarted has nothing old to be confused with.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import torch

c10d: Any = torch.distributed
"""Its type stubs leave out what is used here."""

BACKEND = "gloo"
SENDER, RECEIVER, BOTH = 0, 1, 2
CAME = "came"
POLLED_EVERY = 0.005
"""Seconds between two looks whether the receiver came."""

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Form:
    """What a tensor is like: `Form("lm_head.weight", "float32", (288, 32))`."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def forms_of(weights: Mapping[str, torch.Tensor]) -> list[Form]:
    return [
        Form(name, str(one.dtype).removeprefix("torch."), tuple(one.shape))
        for name, one in weights.items()
    ]


def meeting_place(url: str) -> socket.socket:
    """A socket that listens where a server can reach this process, on any free port."""
    at = urlsplit(url)
    return socket.create_server((own_address(str(at.hostname), at.port or 80), 0))


def own_address(host: str, port: int) -> str:
    """The address under which another machine sees this one: of this machine itself, 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.connect((host, port))  # sends nothing: it only picks the way
        return str(asked.getsockname()[0])


class Pair:
    """A sender and a receiver that have met. Raises `RuntimeError` where the other does not come,
    or falls silent for `seconds`."""

    def __init__(self, store: Any, rank: int, own: str, seconds: float) -> None:
        gloo = c10d.ProcessGroupGloo
        options = gloo._Options()
        options._timeout = timedelta(seconds=seconds)
        options._devices = [gloo.create_device(hostname=own)]
        self._group = gloo(store, rank, BOTH, options)
        self._store = store  # the group reads from it as long as it lives

    @classmethod
    def sender(cls, place: socket.socket, given_up: threading.Event, *, seconds: float) -> Pair:
        """Wait at a place until the receiver comes, or this is given up; the socket is used up."""
        own, port = place.getsockname()[:2]
        timeout = timedelta(seconds=seconds)
        store = c10d.TCPStore(
            own, port, BOTH, True, timeout, wait_for_workers=False, master_listen_fd=place.detach()
        )
        until = time.monotonic() + seconds
        while not store.check([CAME]):
            if given_up.wait(POLLED_EVERY) or time.monotonic() > until:
                raise RuntimeError(f"nobody came within {seconds:g} s")
        return cls(store, SENDER, own, seconds)

    @classmethod
    def receiver(cls, address: str, port: int, *, seconds: float) -> Pair:
        """Come to where a sender waits."""
        timeout = timedelta(seconds=seconds)
        store = c10d.TCPStore(address, port, BOTH, False, timeout, wait_for_workers=False)
        store.set(CAME, "1")
        return cls(store, RECEIVER, own_address(address, port), seconds)

    def send(self, weights: Mapping[str, torch.Tensor]) -> None:
        for one in weights.values():
            self._broadcast(one.detach().cpu().contiguous())

    def receive(self, forms: Sequence[Form]) -> dict[str, torch.Tensor]:
        """Tensors of these forms, in the order in which they are sent."""
        found = {form.name: torch.empty(form.shape, dtype=DTYPES[form.dtype]) for form in forms}
        for one in found.values():
            self._broadcast(one)
        return found

    def _broadcast(self, tensor: torch.Tensor) -> None:
        """As bytes, which gloo takes of every type."""
        self._group.broadcast(tensor.view(-1).view(torch.uint8), SENDER).wait()
