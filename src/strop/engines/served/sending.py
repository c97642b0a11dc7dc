"""How weights get from the trainer's memory to a server's: which calls, in which order.

The trainer's half of a broadcast runs in another thread, because a server that refuses would never
come. Every wait has an end: `CONTROL_SECONDS` for each call, and for the trainer's half.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch

from strop.engines.broadcast import BACKEND, BOTH, RECEIVER, Pair, forms_of, meeting_place
from strop.engines.served.server import CONTROL_SECONDS, Body, Calls
from strop.engines.transfer import group, handles, nccl
from strop.errors import HttpError

Weights = Mapping[str, torch.Tensor]
Half = Callable[[threading.Event], None]
"""The trainer's half of a transfer; it ends early once the event is set. Raises `RuntimeError`."""
Way = Callable[[Calls, Weights, str], None]
"""Sends weights to a server, which are called by the name from then on. Raises `HttpError`."""

ENDS_WITHIN = 5.0
"""Seconds that the trainer's half gets to end once it is given up."""
GROUP = "strop"
"""What SGLang calls the group of a transfer."""


@contextmanager
def beside(half: Half, url: str) -> Iterator[None]:
    """Run the trainer's half while the block tells the server to do its own. Raises `HttpError`
    where the trainer's fails, or does not end."""
    given_up, failed = threading.Event(), list[str]()

    def run() -> None:
        try:
            half(given_up)
        except RuntimeError as error:
            if not given_up.is_set():  # else the server has said why
                failed.append(str(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
        thread.join(CONTROL_SECONDS)
        hangs = thread.is_alive()
    except HttpError as error:
        if failed:
            problem = f"{error.problem}; the trainer's half of the transfer failed: {failed[0]}"
            raise HttpError(problem, where=error.where or url, status=error.status) from None
        raise
    finally:
        given_up.set()
        thread.join(ENDS_WITHIN)
    if hangs:
        raise HttpError("the transfer of the weights hung: the trainer's half did not end within "
                        f"{CONTROL_SECONDS:g} s", where=url)  # fmt: skip
    if failed:
        raise HttpError(f"the trainer's half of the transfer failed: {failed[0]}", where=url)


def gloo_to_strop(calls: Calls, weights: Weights, name: str) -> None:
    """To `strop engine serve`: vLLM's routes, spoken over gloo."""
    place = meeting_place(calls.url)
    address, port = place.getsockname()[:2]
    init = {"master_address": address, "master_port": port, "rank_offset": RECEIVER,
            "world_size": BOTH, "backend": BACKEND}  # fmt: skip

    def half(given_up: threading.Event) -> None:
        Pair.sender(place, given_up, seconds=CONTROL_SECONDS).send(weights)

    with beside(half, calls.url):
        calls.tell("init_weight_transfer_engine", {"init_info": init})
        calls.tell("update_weights", {"update_info": _listed(weights)})
    calls.tell("finish_weight_update", {"weight_version": name})


def nccl_to_vllm(calls: Calls, weights: Weights, name: str) -> None:
    """To vLLM 0.32 started with `--weight-transfer-config '{"backend": "nccl"}'`. The group is of
    this transfer alone, so that a server that was restarted finds nothing old."""
    library = nccl.library()
    size = 1 + _workers(calls)
    unique = nccl.unique_id(library)
    init = {"nccl_unique_id_b64": base64.b64encode(unique).decode(), "rank_offset": 1,
            "world_size": size, "packed": False}  # fmt: skip

    taken = threading.Event()

    def half(given_up: threading.Event) -> None:
        nccl.send(
            library, unique, size, weights, seconds=CONTROL_SECONDS, taken=taken, given_up=given_up
        )

    with _standing_still(calls):
        with beside(half, calls.url):
            calls.tell("init_weight_transfer_engine", {"init_info": init})
            calls.tell("start_weight_update", {})
            calls.tell("update_weights", {"update_info": _listed(weights)})
            taken.set()
        calls.tell("finish_weight_update", {"weight_version": name})
        calls.tell("shutdown_weight_transfer_engine", {})


def ipc_to_vllm(calls: Calls, weights: Weights, name: str) -> None:
    """To vLLM 0.32 on the trainer's GPU, started with `--weight-transfer-config '{"backend":
    "ipc"}'` and `VLLM_ALLOW_INSECURE_SERIALIZATION=1`; it reads the trainer's own tensors."""
    given = handles.shared(weights)
    update = {**_listed(weights), "ipc_handles_pickled": handles.by_gpu(given)}
    with _standing_still(calls):
        calls.tell("init_weight_transfer_engine", {"init_info": {"packed": False}})
        calls.tell("start_weight_update", {})
        calls.tell("update_weights", {"update_info": update})
        calls.tell("finish_weight_update", {"weight_version": name})


def group_to_sglang(backend: group.Backend, calls: Calls, weights: Weights, name: str) -> None:
    """To SGLang 0.5.23: all its workers join a group of torch's, of this transfer alone."""
    place = meeting_place(calls.url)
    address, port = place.getsockname()[:2]
    size = 1 + sglang_workers(calls.look("server_info"))
    init = {"master_address": address, "master_port": port, "rank_offset": 1, "world_size": size,
            "group_name": GROUP, "backend": backend}  # fmt: skip
    listed = _listed(weights)
    update = {"names": listed["names"], "dtypes": listed["dtype_names"], "shapes": listed["shapes"],
              "group_name": GROUP, "flush_cache": True, "weight_version": name}  # fmt: skip
    taken = threading.Event()

    def half(given_up: threading.Event) -> None:
        group.send(
            place, weights, backend, name=GROUP, size=size, seconds=CONTROL_SECONDS,
            taken=taken, given_up=given_up,
        )  # fmt: skip

    with beside(half, calls.url):
        calls.tell("init_weights_update_group", init)
        try:
            calls.tell("update_weights_from_distributed", update)
        except HttpError:
            with suppress(HttpError):  # what went wrong is said already
                calls.tell("destroy_weights_update_group", {"group_name": GROUP}, leaving=True)
            raise
        taken.set()
    calls.tell("destroy_weights_update_group", {"group_name": GROUP})


def ipc_to_sglang(calls: Calls, weights: Weights, name: str) -> None:
    """To SGLang 0.5.23 on the trainer's GPU, which reads the trainer's own tensors."""
    given = handles.shared(weights)
    tensors = [handles.named(given)] * sglang_workers(calls.look("server_info"))
    update = {"serialized_named_tensors": tensors, "flush_cache": True, "weight_version": name}
    calls.tell("update_weights_from_tensor", update)


VLLM: Mapping[str, Way] = {"gloo": gloo_to_strop, "nccl": nccl_to_vllm, "ipc": ipc_to_vllm}
SGLANG: Mapping[str, Way] = {
    "gloo": partial(group_to_sglang, "gloo"), "nccl": partial(group_to_sglang, "nccl"),
    "ipc": ipc_to_sglang,
}  # fmt: skip
"""By what a server says that it takes (`Started.transfers`)."""


def sglang_workers(said: Any) -> int:
    """Processes of SGLang that hold weights."""
    return int(said.get("tp_size", 1)) * int(said.get("pp_size", 1))


@contextmanager
def _standing_still(calls: Calls) -> Iterator[None]:
    """Answers of vLLM that are on their way stand still, and go on with the new weights."""
    calls.tell("pause?mode=keep", {})
    try:
        yield
        calls.tell("reset_prefix_cache", {})
    except HttpError:
        with suppress(HttpError):  # what went wrong is said already
            calls.tell("resume", {}, leaving=True)
        raise
    calls.tell("resume", {})


def _workers(calls: Calls) -> int:
    """Processes of vLLM that hold weights."""
    try:
        return int(calls.look("get_world_size")["world_size"])
    except (KeyError, TypeError, ValueError):
        raise HttpError("it does not say its world size", where=calls.url, status=200) from None


def _listed(weights: Weights) -> Body:
    """Names, types and shapes of tensors, as vLLM reads them."""
    forms = forms_of(weights)
    return {"names": [form.name for form in forms],
            "dtype_names": [form.dtype for form in forms],
            "shapes": [list(form.shape) for form in forms]}  # fmt: skip
