"""The trainer's end of a group over NCCL, against a library of the test's own."""

from __future__ import annotations

import ctypes
import threading
import time
from typing import Any

import pytest
import torch

from strop.engines.transfer import nccl
from strop.engines.transfer.nccl import IN_PROGRESS, SUCCESS, Communicator, Config, UniqueId

FAILED = 1


class Library:
    """Notes what it is called with; whatever needs the others is in progress for some looks."""

    def __init__(self, looks: int = 0, then: int = SUCCESS) -> None:
        self.looks, self.then = looks, then
        self.said: list[Any] = []

    def ncclGetUniqueId(self, made: Any) -> int:
        ctypes.memset(made, ord("u"), nccl.UNIQUE_ID_BYTES)
        return SUCCESS

    def ncclCommInitRankConfig(
        self, comm: Any, size: int, unique: UniqueId, rank: int, config: Any
    ) -> int:
        ctypes.cast(comm, ctypes.POINTER(ctypes.c_void_p))[0] = 77
        how = ctypes.cast(config, ctypes.POINTER(Config)).contents
        self.said.append(("init", size, bytes(unique), rank, how.blocking, how.size))
        return IN_PROGRESS if self.looks else self.then

    def ncclCommGetAsyncError(self, comm: Any, state: Any) -> int:
        self.looks -= 1
        ctypes.cast(state, ctypes.POINTER(ctypes.c_int))[0] = (
            IN_PROGRESS if self.looks else self.then
        )
        return SUCCESS

    def ncclBroadcast(self, *given: Any) -> int:
        assert given[0] == given[1], "the sender sends from where the tensor lies"
        self.said.append(("broadcast", *given[2:5], given[5].value))
        return self.then

    def ncclCommAbort(self, comm: Any) -> int:
        self.said.append(("abort", comm.value))
        return SUCCESS

    def ncclGetErrorString(self, code: int) -> bytes:
        return b"unhandled system error"


@pytest.fixture(autouse=True)
def no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nccl, "_stream", lambda tensor: 5)


def group(library: Library, seconds: float = 30.0, given_up: bool = False) -> Communicator:
    event = threading.Event()
    if given_up:
        event.set()
    unique = nccl.unique_id(library)
    return Communicator(library, unique, 3, seconds=seconds, given_up=event)


def test_the_trainer_is_the_first_of_a_group_that_never_blocks() -> None:
    library = Library(looks=3)
    made = group(library)
    made.broadcast(torch.zeros(2, 3, dtype=torch.bfloat16))
    made.broadcast(torch.zeros(5))
    made.abort()
    made.abort()
    whole = ctypes.sizeof(ctypes.c_size_t) + 4 * 4  # size, magic, version, blocking, and padding
    assert library.said == [
        ("init", 3, b"u" * 128, 0, 0, whole),
        ("broadcast", 6, 9, 0, 77),  # 9 is ncclBfloat16
        ("broadcast", 5, 7, 0, 77),  # 7 is ncclFloat32
        ("abort", 77),
    ]
    assert library.looks == 0, "it waited until the others had come"


def test_others_who_never_come_are_a_hang_with_a_name() -> None:
    library = Library(looks=10**9)
    before = time.monotonic()
    with pytest.raises(RuntimeError, match=r"over NCCL hung for 0\.2 s"):
        group(library, seconds=0.2)
    assert time.monotonic() - before < 30
    assert library.said[-1] == ("abort", 77), "the group was left"


def test_a_transfer_that_is_given_up_ends_at_once() -> None:
    with pytest.raises(RuntimeError, match="was given up"):
        group(Library(looks=10**9), seconds=300, given_up=True)


def test_a_failure_is_said_in_nccls_words() -> None:
    library = Library(looks=2, then=FAILED)
    with pytest.raises(RuntimeError, match="NCCL: unhandled system error"):
        group(library)
    assert library.said[-1] == ("abort", 77)


def test_the_sender_stays_until_all_is_taken() -> None:
    made, taken = group(Library()), threading.Event()
    stays = threading.Thread(target=made.stay, args=(taken,), daemon=True)
    stays.start()
    stays.join(0.1)
    assert stays.is_alive()
    taken.set()
    stays.join(30)
    assert not stays.is_alive()
