"""`/v1/chat/completions`, `/v1/completions`, `/inference/v1/generate`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from strop.engines.server import app as engine
from strop.errors import StropError
from strop.serve.access import Caller
from strop.serve.answering import Collected, Piece, Timed, pieces, usage, whole_piece
from strop.serve.compute import chosen
from strop.serve.errors import RefusedError, refusal_of
from strop.serve.exchange import Exchange, new_id, sampling_of, seed_of, session_of
from strop.serve.objects import DONE, ChatForm, Form, TextForm, event, frame
from strop.serve.protocol.bodies import Chat, Completions, Drawing
from strop.serve.routes.callers import caller_of, while_there
from strop.serve.routes.kept import keep
from strop.serve.service import Service
from strop.serve.tools import expect_tools, forced, tools_for
from strop.types import Text


def answer_routes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def chat(body: Chat, request: Request) -> Response:
        caller = caller_of(service, request, "serve")
        form = ChatForm(logprobs=body.logprobs, token_ids=body.return_token_ids)
        top = body.top_logprobs if body.logprobs else 0
        return await _answer(service, request, caller, body, body.longest, [body.messages], top,
                             [form])  # fmt: skip

    @router.post("/v1/completions")
    async def completions(body: Completions, request: Request) -> Response:
        caller = caller_of(service, request, "serve")
        prompts: list[Any] = list(body.prompts)
        forms: list[Form] = [
            TextForm(logprobs=body.logprobs is not None, token_ids=body.return_token_ids,
                     first=place * body.n)
            for place in range(len(prompts))
        ]  # fmt: skip
        return await _answer(service, request, caller, body, body.longest, prompts,
                             body.logprobs or 0, forms)  # fmt: skip

    @router.post("/inference/v1/generate")
    async def generate(body: engine.Generate, request: Request) -> dict[str, Any]:
        """vLLM's protocol, of a version by its name: ids in, ids out. It is not logged."""
        caller_of(service, request, "serve")
        version = service.lineup.version(body.model or service.recipe.models[0].name)
        how = body.sampling_params
        if how.prompt_logprobs is not None:
            raise RefusedError(400, "given tokens are scored by `strop engine serve`",
                               param="sampling_params.prompt_logprobs")  # fmt: skip
        if how.max_tokens > service.recipe.limits.tokens:
            most = service.recipe.limits.tokens
            raise RefusedError(400, f"{how.max_tokens} tokens are asked for: at most {most} here",
                               param="sampling_params.max_tokens")  # fmt: skip
        engine.expect_ends(how.stop_token_ids, version.ends)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(service.turnstile.turn())
            stack.enter_context(service.lineup.using(version))
            made = await while_there(
                request,
                engine.done(version.held.sample(engine.request_of(body), version.adapter)),
                service.recipe.limits.seconds,
            )
            return {"choices": [engine.choice_of(made)], "prompt_logprobs": None,
                    "model": body.model, "weights": version.place.weights}  # fmt: skip

    return router


async def _answer(
    service: Service,
    request: Request,
    caller: Caller,
    body: Drawing,
    longest: int | None,
    prompts: list[Any],
    top: int,
    forms: list[Form],
) -> Response:
    """Each prompt with its form; they share one answer."""
    stack = AsyncExitStack()
    try:
        await stack.enter_async_context(service.turnstile.turn())
        asked = [await _asked(service, stack, caller, body, longest, one, top) for one in prompts]
        if body.stream:
            if body.strop is not None and body.strop.best_of is not None:
                _expect_reward(service, body.strop.reward)
            stream = _stream(service, request, stack.pop_all(), body, asked, forms)
            return StreamingResponse(stream, media_type="text/event-stream",
                                     headers=_headers(asked[0]))  # fmt: skip
        work = _together(service, body, asked, forms)
        made = await while_there(request, work, service.recipe.limits.seconds)
        return JSONResponse(made, headers=_headers(asked[0]))
    finally:
        await stack.aclose()


def _expect_reward(service: Service, name: str | None) -> None:
    if name not in service.rewards:
        known = ", ".join(service.rewards) or "none"
        raise RefusedError(400, f"there is no reward {name!r} here: there are {known}",
                           param="strop.reward")  # fmt: skip


def _headers(asked: Exchange) -> dict[str, str]:
    return {"x-strop-weights": asked.version.place.weights, "x-request-id": asked.id}


async def _asked(
    service: Service,
    stack: AsyncExitStack,
    caller: Caller,
    body: Drawing,
    longest: int | None,
    prompt: Any,
    top: int,
) -> Exchange:
    """What one prompt asks, rendered and bounded. The version is held until the answer is over."""
    session = session_of(caller, body.user, _words(prompt))
    model, version, arm = service.choose(body.model, session)
    stack.enter_context(service.lineup.using(version))
    tools = tools_for(body)
    if isinstance(prompt, list):
        expect_tools(version, tools)
    renderer = version.renderer
    if isinstance(prompt, tuple):
        prompted = renderer.of_ids(prompt)
    else:
        prompted = await asyncio.to_thread(renderer.prompted, prompt, tools)
    prompted = replace(prompted, salt=caller.name)
    sampling = sampling_of(body, longest, version, len(prompted.prompt_ids),
                           service.recipe.limits, top)  # fmt: skip
    call = forced(version, body)
    sampling = sampling if call is None else replace(sampling, grammar=call)
    kind = "chatcmpl" if isinstance(prompt, list) else "cmpl"
    return Exchange(
        new_id(kind), caller, session, model, version, arm, _words(prompt), tools, prompted,
        sampling, body.n, seed_of(body), body.metadata or {},
    )  # fmt: skip


def _words(prompt: Any) -> Text:
    """A prompt as words; one that came as ids has none."""
    return f"ids {list(prompt)}" if isinstance(prompt, tuple) else prompt


async def _pieces(service: Service, body: Drawing, asked: Exchange, timed: Timed
                  ) -> AsyncIterator[Piece]:  # fmt: skip
    """What comes of a request; where more work was asked for, in one piece at the end."""
    if body.strop is None:
        async for piece in pieces(asked, timed):
            yield piece
        return
    found = await chosen(asked, body.strop, service.rewards)
    timed.sampled = found.sampled
    for piece in whole_piece(asked, found.completion):
        yield piece
    timed.ended(asked)


async def _together(
    service: Service, body: Drawing, asked: list[Exchange], forms: list[Form]
) -> dict[str, Any]:
    """A whole answer."""
    parts = await asyncio.gather(*(_whole(service, body, one) for one in asked))
    choices: list[dict[str, Any]] = []
    used: dict[str, Any] = {}
    for one, form, (came, timed) in zip(asked, forms, parts, strict=True):
        choices += [form.choice(one, index, part) for index, part in enumerate(came)]
        ended = [part.done() for part in came]
        used = _added(used, usage(one, ended, timed.sampled))
        keep(service, one, ended, timed)
    if len(asked) > 1:
        choices.sort(key=lambda choice: int(choice["index"]))
    return frame(asked[0], forms[0].kind, choices) | {"usage": used}


async def _whole(service: Service, body: Drawing, asked: Exchange
                 ) -> tuple[list[Collected], Timed]:  # fmt: skip
    came, timed = [Collected() for _ in range(asked.n)], Timed()
    async for piece in _pieces(service, body, asked, timed):
        came[piece.index].add(piece)
    return came, timed


async def _stream(
    service: Service,
    request: Request,
    stack: AsyncExitStack,
    body: Drawing,
    asked: list[Exchange],
    forms: list[Form],
) -> AsyncIterator[str]:
    """An answer as server-sent events. An error in the middle is an event of its own; a client that
    goes away ends the work."""
    async with stack:
        used: dict[str, Any] = {}
        try:
            async with asyncio.timeout(service.recipe.limits.seconds):
                for one, form in zip(asked, forms, strict=True):
                    first = [c for n in range(one.n) for c in form.opening(one, n)]
                    if first:
                        yield event(frame(one, form.chunk_kind, first))
                    came, timed = [Collected() for _ in range(one.n)], Timed()
                    async for piece in _pieces(service, body, one, timed):
                        came[piece.index].add(piece)
                        for choice in form.chunks(one, piece):
                            yield event(frame(one, form.chunk_kind, [choice]))
                    ended = [part.done() for part in came]
                    used = _added(used, usage(one, ended, timed.sampled))
                    keep(service, one, ended, timed)
        except TimeoutError:
            yield event(RefusedError(504, "the answer took too long", code="timeout").body())
        except (StropError, RefusedError) as error:
            yield event(refusal_of(error).body())
        except Exception as error:
            logging.getLogger("strop.serve").exception("a stream failed")
            yield event(refusal_of(error).body())
        if body.stream_options is not None and body.stream_options.include_usage and used:
            yield event(frame(asked[0], forms[0].chunk_kind, []) | {"usage": used})
        yield DONE


def _added(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The tokens of both."""
    if not one:
        return other
    return {name: _added(value, other[name]) if isinstance(value, dict) else value + other[name]
            for name, value in one.items()}  # fmt: skip
