"""Serves until it is told to end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import uvicorn

from strop.engines.server.listen import ToldServer, listening
from strop.files import locked
from strop.model.load import expect_weights
from strop.recipe.serve import ServeRecipe
from strop.rewards.compose import Reward
from strop.serve.access import Doors
from strop.serve.app import serve_app
from strop.serve.limits import Turnstile
from strop.serve.models.holder import expect_engine, holding
from strop.serve.models.lineup import Lineup
from strop.serve.models.places import Places
from strop.serve.service import Service
from strop.serve.traffic.log import TrafficLog


def check(recipe: ServeRecipe) -> None:
    """Look at all that serving needs, and load no model. Raises `UsageError` as `serve` would."""
    Doors(recipe.tokens)
    places = Places(recipe.registry)
    parts = [part.entry for part in (recipe.canary, recipe.shadow) if part is not None]
    for path in [model.path for model in recipe.models if model.path is not None]:
        expect_weights(path)
    for given in [*(model.entry for model in recipe.models if model.entry is not None), *parts]:
        places.expect(given)
    for components in recipe.rewards.values():
        Reward(components)
    expect_engine(recipe.engine, recipe.models[0].path or "MODEL")


def serve(recipe: ServeRecipe, tell: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; what is under way is finished first, within
    `limits.drain_seconds`. `tell` is told the address once it answers.

    Raises `UsageError` for a model, token or reward that cannot be used, and for a port or a
    traffic folder that is taken.
    """
    with ExitStack() as stack, suppress(KeyboardInterrupt):
        doors = Doors(recipe.tokens)
        traffic = None
        if recipe.traffic is not None:
            stack.enter_context(locked(Path(recipe.traffic.folder)))
            traffic = TrafficLog(recipe.traffic)
        listens = stack.enter_context(listening(recipe.host, recipe.port))
        rewards = {name: Reward(parts) for name, parts in recipe.rewards.items()}
        host = f"[{recipe.host}]" if ":" in recipe.host else recipe.host
        address = f"http://{host}:{listens.getsockname()[1]}"

        async def run() -> None:
            service = Service(recipe, doors, Turnstile(recipe.limits), Places(recipe.registry),
                              Lineup(holding(recipe.engine)), traffic, rewards)  # fmt: skip
            following = None
            try:
                await service.open()
                following = asyncio.create_task(service.follow())
                config = uvicorn.Config(
                    serve_app(service), log_level="warning", access_log=False,
                    timeout_graceful_shutdown=round(recipe.limits.drain_seconds),
                )  # fmt: skip
                await ToldServer(config, lambda: tell(address)).serve(sockets=[listens])
            finally:
                if following is not None:
                    following.cancel()
                await service.close()

        asyncio.run(run())
