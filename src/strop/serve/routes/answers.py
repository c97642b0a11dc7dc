"""`/v1/chat/completions`, `/v1/completions`, `/inference/v1/generate`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from strop.engines.server import app as engine
from strop.engines.server.streams import DONE, Streamed, event
from strop.errors import StropError
from strop.serve.access import Caller
from strop.serve.answering import Collected, Piece, Timed, pieces, usage, whole_piece
from strop.serve.compute import chosen, reward_of
from strop.serve.errors import RefusedError, refusal_of
from strop.serve.exchange import Exchange, Start, new_id, sampling_of, seed_of, session_of
from strop.serve.objects import ChatForm, Form, TextForm, frame
from strop.serve.protocol.bodies import Chat, Completions, Drawing
from strop.serve.routes.callers import all_or_none, caller_of, while_there
from strop.serve.routes.kept import keep
from strop.serve.service import Service
from strop.serve.tools import expect_tools, forced, tools_for


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
    async def generate(body: engine.Generate, request: Request) -> Response:
        """vLLM's protocol, of a version by its name: ids in, ids out. It is not logged."""
        caller = caller_of(service, request, "serve")
        _, version = service.served(body.model)
        how = body.sampling_params
        if how.prompt_logprobs is not None:
            raise RefusedError(400, "given tokens are scored by `strop engine serve`",
                               param="sampling_params.prompt_logprobs")  # fmt: skip
        if how.max_tokens > service.recipe.limits.tokens:
            most = service.recipe.limits.tokens
            raise RefusedError(400, f"{how.max_tokens} tokens are asked for: at most {most} here",
                               param="sampling_params.max_tokens")  # fmt: skip
        engine.expect_ends(how.stop_token_ids, version.ends)
        wanted = engine.request_of(body)
        wanted = replace(wanted, prompt=replace(wanted.prompt, salt=caller.name))
        async with AsyncExitStack() as stack:
            stack.enter_context(service.lineup.using(version))
            await _turn(service, request, stack)
            seconds = service.recipe.limits.seconds
            sample = partial(version.held.sample, wanted, version.adapter)
            made_by = {"model": body.model, "weights": version.place.weights}
            if body.stream:
                begins = engine.streamed(sample, made_by, stack)
                stream = await while_there(request, begins, seconds)
                return Streamed(stream, stack.pop_all(), seconds, {})
            made = await while_there(request, engine.done(sample()), seconds)
            return JSONResponse({"choices": [engine.choice_of(made)], "prompt_logprobs": None,
                                 **made_by})  # fmt: skip

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
    """Each prompt with its form; they share one answer: one session, version and seed."""
    _expect_few(service, body, len(prompts))
    session = session_of(caller, body.user, prompts[0])
    chosen_for = service.choose(body.model, session)
    start = Start(caller, session, *chosen_for, seed=seed_of(body))
    stack = AsyncExitStack()
    try:
        stack.enter_context(service.lineup.using(start.version))
        await _turn(service, request, stack)
        asked = [await _asked(service, start, body, longest, one, top) for one in prompts]
        if body.stream:
            if body.strop is not None and body.strop.reward is not None:
                reward_of(body.strop.reward, service.rewards)  # refused before the stream begins
            stream = _stream(service, body, asked, forms)
            return Streamed(stream, stack.pop_all(), service.recipe.limits.seconds,
                            _headers(asked[0]))  # fmt: skip
        work = _together(service, body, asked, forms)
        made = await while_there(request, work, service.recipe.limits.seconds)
        return JSONResponse(made, headers=_headers(asked[0]))
    finally:
        await stack.aclose()


async def _turn(service: Service, request: Request, stack: AsyncExitStack) -> None:
    """Wait for this request's turn; whoever goes away meanwhile waits no longer."""
    turn = stack.enter_async_context(service.turnstile.turn())
    await while_there(request, turn, service.recipe.limits.seconds)


def _expect_few(service: Service, body: Drawing, prompts: int) -> None:
    """Raise `RefusedError` (400) for more answers than the server gives at once, candidates that
    are not shown among them."""
    more = body.strop
    wanted = prompts * (body.n if more is None else more.best_of or more.maj_at or 1)
    most = service.recipe.limits.choices
    if wanted > most:
        param = "prompt" if prompts > 1 else "n" if more is None else "strop"
        raise RefusedError(400, f"{wanted} answers are asked for: at most {most} here", param=param)


def _headers(asked: Exchange) -> dict[str, str]:
    return {"x-strop-weights": asked.version.place.weights, "x-request-id": asked.id}


async def _asked(
    service: Service, start: Start, body: Drawing, longest: int | None, prompt: Any, top: int
) -> Exchange:
    """What one prompt asks, rendered and bounded."""
    version, caller = start.version, start.caller
    tools = tools_for(body)
    if isinstance(prompt, list):
        expect_tools(version, tools)
    render = version.renderer
    if isinstance(prompt, tuple):
        prompted = render.of_ids(prompt, caller.name)
    else:
        prompted = await asyncio.to_thread(render.prompted, prompt, tools, caller.name)
    sampling = sampling_of(body, longest, version, len(prompted.prompt_ids),
                           service.recipe.limits, top)  # fmt: skip
    call = forced(version, body)
    sampling = sampling if call is None else replace(sampling, grammar=call)
    kind = "chatcmpl" if isinstance(prompt, list) else "cmpl"
    return Exchange(
        new_id(kind), caller, start.session, start.model, version, start.arm,
        prompted.task.prompt, tools, prompted, sampling, body.n, start.seed, body.metadata or {},
    )  # fmt: skip


async def _pieces(service: Service, body: Drawing, asked: Exchange, timed: Timed
                  ) -> AsyncGenerator[Piece]:  # fmt: skip
    """What comes of a request; where more work was asked for, in one piece at the end."""
    if body.strop is None:
        async with aclosing(pieces(asked, timed)) as stream:
            async for piece in stream:
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
    """A whole answer; where one prompt cannot be answered the others are called off."""
    parts = await all_or_none([_whole(service, body, one) for one in asked])
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
    async with aclosing(_pieces(service, body, asked, timed)) as stream:
        async for piece in stream:
            came[piece.index].add(piece)
    return came, timed


async def _stream(
    service: Service, body: Drawing, asked: list[Exchange], forms: list[Form]
) -> AsyncGenerator[str]:
    """An answer as server-sent events. An error in the middle is an event of its own; a client that
    goes away ends the work."""
    used: dict[str, Any] = {}
    until = asyncio.get_running_loop().time() + service.recipe.limits.seconds
    try:
        for one, form in zip(asked, forms, strict=True):
            first = [c for n in range(one.n) for c in form.opening(one, n)]
            if first:
                yield event(frame(one, form.chunk_kind, first))
            came, timed = [Collected() for _ in range(one.n)], Timed()
            async with aclosing(_pieces(service, body, one, timed)) as stream:
                while (piece := await _next(stream, until)) is not None:
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


async def _next(stream: AsyncGenerator[Piece], until: float) -> Piece | None:
    """What comes next, `None` at the end. Raises `TimeoutError` at the moment `until`; a limit
    around the whole stream would end what is done with a piece, somewhere else."""
    async with asyncio.timeout_at(until):
        return await anext(stream, None)


def _added(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The tokens of both."""
    if not one:
        return other
    return {name: _added(value, other[name]) if isinstance(value, dict) else value + other[name]
            for name, value in one.items()}  # fmt: skip
