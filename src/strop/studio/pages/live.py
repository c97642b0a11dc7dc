"""Tells open pages that something changed, as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from strop.studio.pages.runs import last_row
from strop.studio.site import Site
from strop.tracking.story.facts import METRICS, facts_of

LOOK_EVERY = 0.5
"""Seconds between two looks at the files."""
ALIVE_EVERY = 15.0
"""Seconds after which an event without news keeps the connection open."""


def live_routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/live/run/{path:path}")
    async def run(request: Request, path: str) -> StreamingResponse:
        folder = site.root.run(path)

        def state() -> str:
            facts = facts_of(folder)
            try:
                stat = (folder / METRICS).stat()
            except OSError:
                return facts.state
            return f"{facts.state} {stat.st_size} {stat.st_mtime_ns}"

        return _events(request, state)

    @router.get("/live/runs")
    async def runs(request: Request) -> StreamingResponse:
        def state() -> str:
            told = []
            for path in site.root.found().runs:
                row = last_row(site.root.folder / path / METRICS)
                told.append(f"{path} {row.get('step')} {facts_of(site.root.folder / path).state}")
            return "\n".join(told)

        return _events(request, state)

    return router


def _events(request: Request, state: Callable[[], str]) -> StreamingResponse:
    async def stream() -> AsyncIterator[str]:
        seen = await asyncio.to_thread(state)
        yield "retry: 1000\n\n"
        waited = 0.0
        while not await request.is_disconnected():
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
