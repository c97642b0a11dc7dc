"""A group of torch's that SGLang's workers join, and the weights that are broadcast in it.

SGLang (`srt/utils/common.py`, `init_custom_process_group`, 0.5.23) meets at a TCP store, puts the
group's name before every key, and lets torch make the group, which puts the name and the device
before them once more. The sender makes the same backend on the same keys, and no group that torch
counts among the process's own.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Literal

import torch

c10d: Any = torch.distributed
"""Its type stubs leave out what is used here."""

Backend = Literal["nccl", "gloo"]
DEVICES: Mapping[Backend, str] = {"nccl": "cuda", "gloo": "cpu"}
SENDER = 0
POLLED_EVERY = 0.005
"""Seconds between two looks whether a tensor was taken."""


def send(
    place: socket.socket,
    weights: Mapping[str, torch.Tensor],
    backend: Backend,
    *,
    name: str,
    size: int,
    seconds: float,
    taken: threading.Event,
    given_up: threading.Event,
) -> None:
    """Broadcast all weights, in order, to the `size` - 1 workers that come to a place, which is
    used up; and stay until they are `taken`.

    Raises `RuntimeError` where they do not come or do not take them within `seconds`, or once it is
    `given_up`.
    """
    own, port = place.getsockname()[:2]
    store = c10d.TCPStore(
        own, port, size, True, timedelta(seconds=seconds), wait_for_workers=False,
        master_listen_fd=place.detach(),
    )  # fmt: skip
    device = DEVICES[backend]
    keys = store
    for prefix in (name, f"{name}/", f"{device}/"):
        keys = c10d.PrefixStore(prefix, keys)
    group = _backend(backend, keys, size, seconds)
    try:
        for one in weights.values():
            how = c10d.BroadcastOptions()
            how.rootRank = SENDER
            sent = one.detach().to(device).contiguous()
            work = group.broadcast([sent], how)
            _until(work.is_completed, seconds, given_up)
            work.wait()  # raises what it failed with
        _until(taken.is_set, seconds, given_up)
    finally:
        group.abort()


def _until(done: Callable[[], bool], seconds: float, given_up: threading.Event) -> None:
    """Wait until it is done."""
    until = time.monotonic() + seconds
    while not done():
        if given_up.wait(POLLED_EVERY) or time.monotonic() > until:
            raise RuntimeError(f"a tensor was not taken within {seconds:g} s")


def _backend(backend: Backend, store: Any, size: int, seconds: float) -> Any:
    if backend == "gloo":
        return c10d.ProcessGroupGloo(store, SENDER, size, timedelta(seconds=seconds))
    options = c10d.ProcessGroupNCCL.Options()
    # twice the time that is waited for: torch's own watch would end the whole process
    options._timeout = timedelta(seconds=2 * seconds)
    return c10d.ProcessGroupNCCL(store, SENDER, size, options)
