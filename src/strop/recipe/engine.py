"""Which engine answers for a model folder, where nothing is trained: what `engine:` holds in a
suite, a decoding study, a judge's file or the settings of a data verb."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from strop.recipe.base import Strict
from strop.recipe.train.engine import LocalEngineRecipe, Urls


class HoldersRecipe(Strict):
    """Servers that hold the model folder and speak vLLM's protocol: vLLM itself, or `strop engine
    serve`.

    `url` are the addresses of running ones (`http://127.0.0.1:8000`). A request gets `seconds`;
    `at_once` are on their way together. `limit` is how far a server's log-probs of a fixed text may
    be from the folder's, nats a token in the mean; by default 0.001 for a folder in float32 and
    0.02 for one in fewer bits.
    """

    kind: Literal["vllm"]
    url: Urls
    seconds: float = Field(600.0, gt=0)
    at_once: int = Field(64, ge=1)
    limit: float | None = Field(None, gt=0)


FolderEngineRecipe = Annotated[LocalEngineRecipe | HoldersRecipe, Field(discriminator="kind")]

LOCAL = LocalEngineRecipe()
