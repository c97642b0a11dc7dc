"""Which engine answers: a model folder, an endpoint, recorded answers."""

from __future__ import annotations

from strop.curate.synthetic.generation import Target
from strop.engines.build import folder_engine
from strop.engines.engine import Engine
from strop.engines.openai import OpenAIEngine
from strop.engines.recorded import RecordedEngine
from strop.errors import RecipeError, UsageError
from strop.http import RequestLimits
from strop.recipe.engine import LOCAL, FolderEngineRecipe
from strop.recipe.requests import RequestsRecipe
from strop.recipe.synthetic import GenerateRecipe

REQUESTS = "requests"
"""The folder among what is kept that holds an endpoint's answers."""


def engine_for(
    recipe: GenerateRecipe,
    target: Target,
    *,
    model: str | None = None,
    engine: FolderEngineRecipe = LOCAL,
    url: str | None = None,
    model_name: str | None = None,
    recorded: str | None = None,
    thoughts: bool = False,
) -> Engine:
    """The engine that is named: a `model` folder or hub name (in this process, or on the servers
    of `engine`), the model `model_name` behind the
    OpenAI-compatible `url`, or a file of `recorded` answers.

    An endpoint is asked within `recipe.requests`, its answers are kept as they come, and a request
    that it refuses fails by itself; `thoughts` keeps what it puts beside an answer as a thought.
    Raises `UsageError` unless one engine is named, and for requests of no endpoint.
    """
    named = [name for name, given in (("--model", model), ("--url", url), ("--recorded", recorded))
             if given is not None]  # fmt: skip
    if len(named) != 1:
        raise UsageError(
            "who answers?" if not named else f"{' and '.join(named)} name two engines",
            fix="give --model FOLDER, --url URL --model-name NAME, or --recorded FILE",
        )
    if engine.kind != "local" and model is None:
        raise UsageError("--engine names servers of a model folder, and there is none",
                         fix="give --model FOLDER, or drop it")  # fmt: skip
    if (url is None) != (model_name is None):
        raise UsageError("--url and --model-name belong together", fix="give both")
    if url is not None and model_name is not None:
        limits = _limits(recipe.requests)
        cache = target.kept / REQUESTS
        return OpenAIEngine(
            url, model_name, limits=limits, cache=cache, lenient=True, thoughts=thoughts
        )
    if recipe.requests != RequestsRecipe():
        raise RecipeError("`requests` says how an endpoint is asked, and there is none",
                          fix="drop it, or give --url")  # fmt: skip
    return folder_engine(model, engine) if model is not None else RecordedEngine(str(recorded))


def _limits(requests: RequestsRecipe) -> RequestLimits:
    return RequestLimits(**requests.model_dump())
