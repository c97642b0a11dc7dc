"""The routes by which a server takes weights that a trainer broadcasts: vLLM's names, gloo below.

vLLM's own (`vllm/entrypoints/rl/online/api_router.py`, 0.32) are spoken over NCCL; `backend` in
`init_info` says that these are not.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import torch
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from strop.engines.broadcast import DTYPES, Form, Pair
from strop.engines.server.held import Held
from strop.errors import UsageError

RECEIVED_WITHIN = 300.0
"""Seconds in which the trainer has to come, and each tensor after another."""


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Group(Body):
    master_address: str
    master_port: int = Field(ge=1, le=65_535)
    rank_offset: Literal[1]
    world_size: Literal[2]
    backend: Literal["gloo"]


class Init(Body):
    init_info: Group


class Forms(Body):
    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]


class Update(Body):
    update_info: Forms


class Finish(Body):
    weight_version: str


class Transfer:
    """One transfer: the pair that has met, and the weights that came."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._pair: Pair | None = None
        self._came: dict[str, torch.Tensor] = {}

    def meet(self, group: Group) -> None:
        self._pair, self._came = None, {}
        try:
            self._pair = Pair.receiver(
                group.master_address, group.master_port, seconds=RECEIVED_WITHIN
            )
        except RuntimeError as error:
            raise UsageError(f"nobody was met at {group.master_address}: {error}") from None

    def receive(self, forms: list[Form]) -> None:
        """Wait for tensors of these forms, which have to be those of the whole model."""
        pair, self._pair = self._pair, None  # one that is refused is let go, so that it is not sent
        if pair is None:
            raise UsageError("no transfer was begun", fix="POST /init_weight_transfer_engine first")
        _expect_whole(forms, self._held.forms())
        try:
            self._came = pair.receive(forms)
        except RuntimeError as error:
            raise UsageError(f"the weights stopped coming: {error}") from None

    async def finish(self, version: str) -> None:
        """Use what came, under this name."""
        came, self._came = self._came, {}
        if not came:
            raise UsageError("no weights came")
        await asyncio.wrap_future(self._held.take(came, version))


def add_transfer(app: FastAPI, held: Held) -> None:
    transfer = Transfer(held)

    @app.post("/init_weight_transfer_engine")
    def init(body: Init) -> dict[str, Any]:
        transfer.meet(body.init_info)
        return {"message": "met"}

    @app.post("/update_weights")
    def update(body: Update) -> dict[str, Any]:
        listed = body.update_info
        if not len(listed.names) == len(listed.dtype_names) == len(listed.shapes):
            raise UsageError("names, dtype_names and shapes have different lengths")
        forms = zip(listed.names, listed.dtype_names, listed.shapes, strict=True)
        transfer.receive([Form(name, dtype, tuple(shape)) for name, dtype, shape in forms])
        return {"message": "received"}

    @app.post("/finish_weight_update")
    async def finish(body: Finish) -> dict[str, Any]:
        await transfer.finish(body.weight_version)
        return {"message": "loaded"}


def _expect_whole(given: list[Form], own: list[Form]) -> None:
    """Raise `UsageError` unless all of the model's tensors are given, and no others."""
    unknown = sorted({form.dtype for form in given} - DTYPES.keys())
    if unknown:
        raise UsageError(f"weights of type {unknown[0]} cannot be taken")
    shapes = {form.name: form.shape for form in given}
    wanted = {form.name: form.shape for form in own}
    if len(shapes) < len(given) or shapes != wanted:
        wrong = sorted({one for one, _ in shapes.items() ^ wanted.items()})
        raise UsageError(f"these are not the weights of this model: {', '.join(wrong[:3])}")
