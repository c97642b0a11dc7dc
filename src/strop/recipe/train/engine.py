"""Which engine samples the rollouts of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from strop.recipe.base import Strict


def _listed(given: object) -> object:
    return [given] if isinstance(given, str) else given


def _is_no_interface(url: str) -> str:
    plain = url.rstrip("/")
    if plain.endswith("/v1"):
        raise ValueError(
            f"{plain} is the address of a server's OpenAI interface alone: write the server's "
            f"own, {plain.removesuffix('/v1')}"
        )
    return url


def _addresses_are_servers(urls: list[str]) -> list[str]:
    plain = [url.rstrip("/") for url in urls]
    for url in plain:
        if "," in url:
            raise ValueError(f"{url} are several addresses in one: write a list, [A, B]")
        _is_no_interface(url)
    if len(set(plain)) < len(plain):
        raise ValueError("the same url stands twice: a server is asked once")
    return urls


Address = Annotated[str, AfterValidator(_is_no_interface)]
"""A server's own address."""
Addresses = Annotated[list[str], BeforeValidator(_listed), AfterValidator(_addresses_are_servers)]
"""Addresses, no two of them the same."""
Urls = Annotated[Addresses, Field(min_length=1)]
"""One address or several."""


class LocalEngineRecipe(Strict):
    """The engine in the trainer's own process, which samples from the very tensors it trains."""

    kind: Literal["local"] = "local"


class HoldersRecipe(Strict):
    """Servers that hold the model folder: `vllm` speaks vLLM's protocol (vLLM itself, or `strop
    engine serve`), `sglang` SGLang's own.

    `url` are the addresses of running ones (`http://127.0.0.1:8000`). A request gets `seconds`;
    `at_once` are on their way together. `limit` is how far a server's log-probs of a fixed text may
    be from the folder's, nats a token in the mean; by default 0.001 for a folder in float32 and
    0.02 for one in fewer bits.
    """

    kind: Literal["vllm", "sglang"]
    url: Urls
    seconds: float = Field(600.0, gt=0)
    at_once: int = Field(64, ge=1)
    limit: float | None = Field(None, gt=0)


class ServersRecipe(Strict):
    """Servers that sample for the run.

    `url` are the addresses of running ones (`http://127.0.0.1:8000`, without `/v1`). `sync` says
    how weights get there: `adapter` loads only the adapter, under a new name each time; `disk`
    writes the whole model and lets the servers read it again; `broadcast` sends the whole model
    from memory to memory (NCCL where both sides are on CUDA, gloo to `strop engine serve`); `ipc`
    lets servers on the trainer's GPU read the trainer's own tensors; by default `adapter` where the
    model has one, and `disk` where not. With `sleep` servers on the trainer's GPU give their memory
    back while the trainer updates (`ipc` alone).
    `folder` is where the weights are written (default: `engine` in the run's folder); every server
    has to see it under this path. A request gets `seconds`; `at_once` are on their way together.
    `limit` is how far a server's log-probs of a fixed text may be from the trainer's after each
    publish, nats a token in the mean.
    """

    url: Urls
    sync: Literal["adapter", "disk", "broadcast", "ipc"] | None = None
    sleep: bool = False
    folder: Path | None = None
    seconds: float = Field(600.0, gt=0)
    at_once: int = Field(64, ge=1)
    limit: float = Field(0.02, gt=0)

    @model_validator(mode="after")
    def _weights_need_a_folder(self) -> Self:
        if self.sync in ("broadcast", "ipc") and self.folder is not None:
            raise ValueError(
                f"folder is for weights that are written: drop it, or sync: {self.sync}"
            )
        return self

    @model_validator(mode="after")
    def _sleeps_where_the_trainer_computes(self) -> Self:
        if self.sleep and self.sync != "ipc":
            raise ValueError(
                "sleep is for servers on the trainer's GPU, which get their weights there: drop "
                "it, or set sync: ipc"
            )
        return self


class VllmRecipe(ServersRecipe):
    """Servers that speak vLLM's protocol: vLLM itself, or `strop engine serve`.

    Instead of `url`, `python` is the Python of an environment with vLLM: then strop starts one vLLM
    on this machine for the run, with `arguments` after its own, waits up to `start_seconds` until
    it answers, and ends it with the run.
    """

    kind: Literal["vllm"]
    url: Addresses = Field(default_factory=list)
    python: Path | None = None
    arguments: list[str] = Field(default_factory=list)
    start_seconds: float = Field(600.0, gt=0)

    @model_validator(mode="after")
    def _runs_or_is_started(self) -> Self:
        if bool(self.url) == (self.python is not None):
            raise ValueError("give either url, of servers that run, or python, to have one started")
        unread = {"arguments", "start_seconds"} & self.model_fields_set
        if self.url and unread:
            raise ValueError(f"{min(unread)} is for a server that strop starts: drop it, or url")
        if self.python is not None and self.sync == "broadcast":
            raise ValueError("python starts vLLM on the trainer's own GPU, where NCCL wants two: "
                             "drop sync, or set sync: ipc")  # fmt: skip
        return self

    def at(self, url: str) -> VllmRecipe:
        """The recipe of the server that was started, which answers here."""
        return self.model_copy(update={"url": [url], "python": None})


class SglangRecipe(ServersRecipe):
    """Servers that speak SGLang's native protocol."""

    kind: Literal["sglang"]


ServedRecipe = VllmRecipe | SglangRecipe

EngineRecipe = Annotated[LocalEngineRecipe | ServedRecipe, Field(discriminator="kind")]
