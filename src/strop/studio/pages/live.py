"""Tells open pages that something changed, as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from strop.studio.site import Site
from strop.tracking.story.facts import stamp_of

LOOK_EVERY = 0.5
"""Seconds between two looks at the files."""
ALIVE_EVERY = 15.0
"""Seconds after which an event without news keeps the connection open."""


def live_routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/live/run/{path:path}")
    async def run(request: Request, path: str) -> StreamingResponse:
        folder = site.root.run(path)

        return _events(site, request, lambda: stamp_of(folder))

    @router.get("/live/runs")
    async def runs(request: Request) -> StreamingResponse:
        def all_runs() -> object:
            return [(path, stamp_of(site.root.folder / path)) for path in site.root.found().runs]

        return _events(site, request, all_runs)

    return router


def _events(site: Site, request: Request, state: Callable[[], object]) -> StreamingResponse:
    async def stream() -> AsyncIterator[str]:
        seen = await asyncio.to_thread(state)
        yield "retry: 1000\n\n"
        waited = 0.0
        while not site.ending.is_set() and not await request.is_disconnected():
            await asyncio.sleep(LOOK_EVERY)
            waited += LOOK_EVERY
            now = await asyncio.to_thread(state)
            if now != seen:
                seen, waited = now, 0.0
                yield "event: changed\ndata: 1\n\n"
            elif waited >= ALIVE_EVERY:
                waited = 0.0
                yield ": alive\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")
