"""What differs between the kinds of servers that a recipe can name: one entry a kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from strop.engines.served.command import sglang_command, vllm_command
from strop.engines.served.server import Server
from strop.engines.served.sglang import SglangServer
from strop.engines.served.vllm import VllmServer
from strop.recipe.train.engine import ServedRecipe
from strop.recipe.train.model import ModelRecipe


class Connect(Protocol):
    def __call__(self, url: str, *, seconds: float) -> Server: ...


@dataclass(frozen=True, slots=True)
class Kind:
    """Whose protocol it is, who speaks it here, and how to start a server with
    `start(model, port, context)`."""

    protocol: str
    connect: Connect
    start: Callable[[ModelRecipe, int, int], str]


def _start_vllm(model: ModelRecipe, port: int, context: int) -> str:
    command = vllm_command("python", model.path, port, context=context, rank=_rank(model))
    return (
        f"start one: strop engine serve {model.path} --port {port}\n"
        f"  or vLLM, by its own Python (docs/engines.md): {command.line()}"
    )


def _start_sglang(model: ModelRecipe, port: int, context: int) -> str:
    command = sglang_command("python", model.path, port, context=context, rank=_rank(model))
    return f"start one, by its own Python (docs/engines.md): {command.line()}"


def _rank(model: ModelRecipe) -> int | None:
    return None if model.lora is None else model.lora.rank


KINDS: Mapping[str, Kind] = {
    "vllm": Kind("vLLM", VllmServer, _start_vllm),
    "sglang": Kind("SGLang", SglangServer, _start_sglang),
}


def servers_of(recipe: ServedRecipe) -> list[Server]:
    """The servers that a recipe names; nothing is asked of them."""
    connect = KINDS[recipe.kind].connect
    return [connect(url, seconds=recipe.seconds) for url in recipe.url]
