"""Refuses a way by which weights cannot get to a server, before anything is computed."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from strop.engines.broadcast import own_address
from strop.engines.served.server import Server, Started
from strop.errors import UsageError
from strop.model.load import pick_device
from strop.recipe.train.engine import ServedRecipe
from strop.recipe.train.model import ModelRecipe

DISK = "send them by disk (rollout.engine.sync: disk)"
STARTED_FOR = (
    'start vLLM in its dev mode with --weight-transfer-config \'{{"backend": "{0}"}}\', '
    "as docs/engines.md says"
)


def expect_way(recipe: ServedRecipe, model: ModelRecipe) -> None:
    """Raise `UsageError` where weights would get to the servers by a way that does not fit the
    model, this machine, or where the servers are."""
    way = recipe.sync
    if way is not None and (way == "adapter") == (model.lora is None):
        raise UsageError(
            f"rollout.engine.sync is {way}, and the model has "
            f"{'no' if model.lora is None else 'an'} adapter",
            fix="drop rollout.engine.sync: it follows from model.lora",
        )
    if way != "ipc":
        return
    device = pick_device(model.device)
    if device != "cuda":
        raise UsageError(
            f"rollout.engine.sync is ipc, which shares the memory of a GPU, and the model is on "
            f"{device}",
            fix=DISK,
        )
    for url in recipe.url:
        if not is_here(url):
            raise UsageError(
                "rollout.engine.sync is ipc, and this server is on another machine: it does not "
                "see the trainer's GPU",
                where=url, fix=f"sync: broadcast, or {DISK}",
            )  # fmt: skip


def is_here(url: str) -> bool:
    """Whether an address is one of this machine; of one that leads nowhere somebody else says
    so."""
    at = urlsplit(url)
    host, port = str(at.hostname), at.port or 80
    try:
        return own_address(host, port) == socket.gethostbyname(host)
    except OSError:
        return True


def expect_started(server: Server, recipe: ServedRecipe, model: ModelRecipe) -> None:
    """Raise `UsageError` where a server says that it was started in a way in which it cannot take
    weights as the recipe sends them. One that says nothing is left to the canary."""
    if model.lora is not None:
        return
    started = server.started()
    if started is not None and started.quantization is not None:
        raise UsageError(
            f"the server quantises its weights ({started.quantization}), and the run sends whole "
            "ones: it would sample from another policy than the one that is trained",
            where=server.url,
            fix="start it without --quantization, with the model's own weights, or train an "
            "adapter (model.lora)",
        )
    if recipe.sync == "broadcast":
        broadcast_way(started, pick_device(model.device), server.url)
    elif recipe.sync == "ipc":
        _expect_shares(started, server.url)
    if recipe.sleep and started is not None and not started.sleeps:
        raise UsageError(
            "rollout.engine.sleep is set, and the server cannot give its memory back",
            where=server.url,
            fix="start vLLM with --enable-sleep-mode, SGLang with --enable-memory-saver "
            "--enable-weights-cpu-backup; or drop sleep",
        )


def broadcast_way(started: Started | None, device: str, url: str) -> str:
    """By what weights are broadcast: NCCL where both sides are on CUDA, else gloo. Raises
    `UsageError` where the server takes neither."""
    takes = frozenset() if started is None else started.transfers
    if device == "cuda" and "nccl" in takes:
        return "nccl"
    if "gloo" in takes:
        return "gloo"
    if "nccl" in takes:
        raise UsageError(
            f"the server takes weights over NCCL, which needs CUDA, and the model is on {device}",
            where=url, fix=DISK,
        )  # fmt: skip
    raise UsageError("the server takes no weights by broadcast", where=url,
                     fix=f"{STARTED_FOR.format('nccl')}, or {DISK}")  # fmt: skip


def _expect_shares(started: Started | None, url: str) -> None:
    if started is None or "ipc" not in started.transfers:
        raise UsageError("the server takes no weights by CUDA IPC", where=url,
                         fix=f"{STARTED_FOR.format('ipc')}, or {DISK}")  # fmt: skip
    if started.workers > 1:
        raise UsageError(
            f"the server has {started.workers} processes that hold weights, on as many GPUs, and "
            "the trainer's are on one",
            where=url, fix="start it on the trainer's GPU alone, or sync: broadcast",
        )  # fmt: skip
