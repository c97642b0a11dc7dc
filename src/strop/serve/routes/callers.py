"""Lets a caller in: its token, its scope, its turn, its patience."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import Request

from strop.engines.server.streams import GoneError, unless_gone
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
    try:
        return await unless_gone(request, work, seconds)
    except GoneError:
        raise RefusedError(499, "the client went away") from None
    except TimeoutError:
        raise RefusedError(504, f"no answer within {seconds:g} s", code="timeout") from None


async def all_or_none(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """What all of them come to; where one fails the others are called off, and are over."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
