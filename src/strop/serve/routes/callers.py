"""Lets a caller in: its token, its scope, its turn, its patience."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import Request

from strop.recipe.serve import Scope
from strop.serve.access import Caller
from strop.serve.errors import RefusedError
from strop.serve.service import Service

T = TypeVar("T")


def caller_of(service: Service, request: Request, scope: Scope) -> Caller:
    return service.doors.caller(request.headers.get("authorization"), scope)


async def while_there(request: Request, work: Coroutine[Any, Any, T], seconds: float) -> T:
    """The result of some work, which is called off when the client goes away or time is up.

    Raises `RefusedError` 499 (nobody reads it) and 504.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise RefusedError(499, "the client went away")
        raise RefusedError(504, f"no answer within {seconds:g} s", code="timeout")
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def all_or_none(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """What all of them come to; where one fails the others are called off, and are over."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
