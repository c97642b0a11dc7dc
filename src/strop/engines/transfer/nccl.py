"""Broadcasts weights over NCCL to processes that join by a unique id: the workers of vLLM.

vLLM's workers (`distributed/weight_transfer/nccl_common.py`, 0.32) take `nccl_unique_id_b64`, begin
with an all-reduce of one float, and then receive tensor after tensor. The library is called itself,
because torch's groups exchange the id in a way of their own. Every wait has an end: communicators
are made without blocking (`ncclConfig_t.blocking`, NCCL 2.14), and are aborted.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from strop.errors import UsageError

UNIQUE_ID_BYTES = 128
SUCCESS, IN_PROGRESS = 0, 7
SUM = 0
SENDER = 0
POLLED_EVERY = 0.001
"""Seconds between two looks whether NCCL is done."""
UNDER_WAY = 2**28
"""Bytes of tensors that may be on their way together."""

TYPES: Mapping[torch.dtype, int] = {
    torch.float16: 6, torch.float32: 7, torch.float64: 8, torch.bfloat16: 9,
}  # fmt: skip
"""NCCL's numbers of them (`ncclDataType_t`)."""


class UniqueId(ctypes.Structure):
    """`ncclUniqueId`: who meets, and where."""

    _fields_ = (("internal", ctypes.c_char * UNIQUE_ID_BYTES),)


class Config(ctypes.Structure):
    """The beginning of `ncclConfig_t`, as NCCL 2.14 had it; later ones read the rest as default."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("magic", ctypes.c_uint),
        ("version", ctypes.c_uint),
        ("blocking", ctypes.c_int),
    )

    @classmethod
    def without_blocking(cls) -> Config:
        return cls(ctypes.sizeof(cls), 0xCAFEBEEF, 21400, 0)


@cache
def library() -> Any:
    """NCCL, which torch has loaded where it is made for CUDA. Raises `UsageError` where not."""
    try:
        found = ctypes.CDLL("libnccl.so.2")
    except OSError:
        raise UsageError("this torch comes without NCCL", fix="install torch for CUDA, or send "
                         "weights by disk (rollout.engine.sync: disk)") from None  # fmt: skip
    found.ncclGetErrorString.restype = ctypes.c_char_p
    found.ncclCommInitRankConfig.argtypes = [
        ctypes.c_void_p, ctypes.c_int, UniqueId, ctypes.c_int, ctypes.c_void_p,
    ]  # fmt: skip
    for call in (found.ncclAllReduce, found.ncclBroadcast):
        call.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int,
            ctypes.c_void_p, ctypes.c_void_p,
        ]  # fmt: skip
    found.ncclCommAbort.argtypes = [ctypes.c_void_p]
    found.ncclCommGetAsyncError.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    return found


def unique_id(nccl: Any) -> bytes:
    """A new meeting point in this process, to be told to those who come."""
    made = UniqueId()
    _expect(nccl, nccl.ncclGetUniqueId(ctypes.byref(made)))
    return bytes(ctypes.string_at(ctypes.byref(made), UNIQUE_ID_BYTES))


class Communicator:
    """The sender's end of a group of `size`. Raises `RuntimeError` where the others do not come or
    do not take what is sent within `seconds`, or once it is `given_up`."""

    def __init__(
        self, nccl: Any, unique: bytes, size: int, *, seconds: float, given_up: threading.Event
    ) -> None:
        self._nccl, self._given_up = nccl, given_up
        self._seconds, self._until = seconds, time.monotonic() + seconds
        self._comm = ctypes.c_void_p()
        config = Config.without_blocking()
        begun = nccl.ncclCommInitRankConfig(
            ctypes.byref(self._comm), size, UniqueId.from_buffer_copy(unique), SENDER,
            ctypes.byref(config),
        )  # fmt: skip
        try:
            self._settle(begun)
        except RuntimeError:
            self.abort()
            raise

    def greet(self, one: torch.Tensor) -> None:
        """The all-reduce of one float with which vLLM's workers begin."""
        self._settle(self._nccl.ncclAllReduce(
            one.data_ptr(), one.data_ptr(), one.numel(), TYPES[one.dtype], SUM, self._comm,
            _stream(one),
        ))  # fmt: skip

    def broadcast(self, tensor: torch.Tensor) -> None:
        """Begin to send a contiguous tensor."""
        self._settle(self._nccl.ncclBroadcast(
            tensor.data_ptr(), tensor.data_ptr(), tensor.numel(), TYPES[tensor.dtype], SENDER,
            self._comm, _stream(tensor),
        ))  # fmt: skip

    def done(self, event: Any) -> None:
        """Wait for a CUDA event after what was begun."""
        while not event.query():
            self._expect_time()
            time.sleep(POLLED_EVERY)

    def stay(self, taken: threading.Event) -> None:
        """Wait until the others have said that they have everything: what was sent may still be in
        the hands of NCCL's own threads."""
        while not taken.wait(POLLED_EVERY):
            self._expect_time()

    def abort(self) -> None:
        """Leave the group, whatever the others do."""
        if self._comm.value is not None:
            self._nccl.ncclCommAbort(self._comm)
            self._comm = ctypes.c_void_p()

    def _settle(self, code: int) -> None:
        """Wait until NCCL has taken a call."""
        state = ctypes.c_int(code)
        while state.value == IN_PROGRESS:
            self._expect_time()
            time.sleep(POLLED_EVERY)
            asked = self._nccl.ncclCommGetAsyncError(self._comm, ctypes.byref(state))
            _expect(self._nccl, asked)
        _expect(self._nccl, state.value)

    def _expect_time(self) -> None:
        if self._given_up.is_set():
            raise RuntimeError("the transfer over NCCL was given up")
        if time.monotonic() > self._until:
            raise RuntimeError(f"the transfer over NCCL hung for {self._seconds:g} s")


def send(
    nccl: Any,
    unique: bytes,
    size: int,
    weights: Mapping[str, torch.Tensor],
    *,
    seconds: float,
    taken: threading.Event,
    given_up: threading.Event,
) -> None:
    """Broadcast all weights, in order, from this process's CUDA device to a group of `size` in
    which it is the first, and stay until they are `taken`."""
    group = Communicator(nccl, unique, size, seconds=seconds, given_up=given_up)
    device = torch.device("cuda", torch.cuda.current_device())
    under_way: list[torch.Tensor] = []
    try:
        group.greet(torch.zeros(1, device=device))
        for one in weights.values():
            under_way.append(one.detach().to(device).contiguous())
            group.broadcast(under_way[-1])
            if sum(part.nbytes for part in under_way) > UNDER_WAY:
                group.done(_recorded())
                under_way.clear()
        group.done(_recorded())
        group.stay(taken)
    finally:
        group.abort()


def _recorded() -> Any:
    """An event after all that this device's stream has been given."""
    event = torch.cuda.Event()
    event.record()
    return event


def _stream(tensor: torch.Tensor) -> int:
    return int(torch.cuda.current_stream(tensor.device).cuda_stream)


def _expect(nccl: Any, code: int) -> None:
    if code != SUCCESS:
        raise RuntimeError(f"NCCL: {nccl.ncclGetErrorString(code).decode()}")
