"""Which engine samples the rollouts of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from strop.recipe.base import Strict


class LocalEngineRecipe(Strict):
    """The engine in the trainer's own process, which samples from the very tensors it trains."""

    kind: Literal["local"] = "local"


class ServersRecipe(Strict):
    """Servers that sample for the run.

    `url` are the addresses of running ones (`http://127.0.0.1:8000`, without `/v1`). `sync` says
    how weights get there: `adapter` loads only the adapter, under a new name each time; `disk`
    writes the whole model and lets the servers read it again; by default `adapter` where the model
    has one.
    `folder` is where the weights are written (default: `engine` in the run's folder); every server
    has to see it under this path. A request gets `seconds`; `at_once` are on their way together.
    `limit` is how far a server's log-probs of a fixed text may be from the trainer's after each
    publish, nats a token in the mean.
    """

    url: Annotated[list[str], Field(min_length=1)]
    sync: Literal["adapter", "disk"] | None = None
    folder: Path | None = None
    seconds: float = Field(600.0, gt=0)
    at_once: int = Field(64, ge=1)
    limit: float = Field(0.02, gt=0)

    @field_validator("url", mode="before")
    @classmethod
    def _one_or_several(cls, given: object) -> object:
        return [given] if isinstance(given, str) else given

    @model_validator(mode="after")
    def _addresses_are_servers(self) -> Self:
        plain = [url.rstrip("/") for url in self.url]
        for url in plain:
            if url.endswith("/v1"):
                raise ValueError(f"{url} is one of a server's interfaces, and more of them are "
                                 f"needed: write {url.removesuffix('/v1')}")  # fmt: skip
        if len(set(plain)) < len(plain):
            raise ValueError("the same url stands twice: a server is asked once")
        return self


class VllmRecipe(ServersRecipe):
    """Servers that speak vLLM's protocol: vLLM itself, or `strop engine serve`."""

    kind: Literal["vllm"]


class SglangRecipe(ServersRecipe):
    """Servers that speak SGLang's native protocol."""

    kind: Literal["sglang"]


ServedRecipe = VllmRecipe | SglangRecipe

EngineRecipe = Annotated[LocalEngineRecipe | ServedRecipe, Field(discriminator="kind")]
