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


class Connect(Protocol):
    def __call__(self, url: str, *, seconds: float) -> Server: ...


@dataclass(frozen=True, slots=True)
class Kind:
    """Whose protocol it is, who speaks it here, and how to start a server with
    `start(model, rank, port, context)`."""

    protocol: str
    connect: Connect
    start: Callable[[str, int | None, int, int], str]


def _start_vllm(model: str, rank: int | None, port: int, context: int) -> str:
    command = vllm_command("python", model, port, context=context, rank=rank)
    return (
        f"start one: strop engine serve {model} --port {port}\n"
        f"  or vLLM, by its own Python (docs/engines.md): {command.line()}"
    )


def _start_sglang(model: str, rank: int | None, port: int, context: int) -> str:
    command = sglang_command("python", model, port, context=context, rank=rank)
    return f"start one, by its own Python (docs/engines.md): {command.line()}"


KINDS: Mapping[str, Kind] = {
    "vllm": Kind("vLLM", VllmServer, _start_vllm),
    "sglang": Kind("SGLang", SglangServer, _start_sglang),
}


def servers_of(recipe: ServedRecipe) -> list[Server]:
    """The servers that a recipe names; nothing is asked of them."""
    connect = KINDS[recipe.kind].connect
    return [connect(url, seconds=recipe.seconds) for url in recipe.url]
