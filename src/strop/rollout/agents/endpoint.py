"""The server on this machine that agents ask: OpenAI's chat completions, and vLLM's tokens in and
out. The key of a request tells whose episode it belongs to."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse

from strop.engines.server.app import choice_of
from strop.engines.server.lanes import Answered
from strop.errors import TextError
from strop.rollout.agents.capture import Capture, LimitError
from strop.rollout.agents.requests import Chat, Generate
from strop.rollout.tools.said import readable
from strop.text.turns import SaidTurn
from strop.types import Completion

MODEL = "policy"
"""The name of the model in training."""

READ_AS_IS = frozenset({
    "model", "stream_options", "user", "metadata", "store", "parallel_tool_calls", "logprobs",
    "return_token_ids", "cache_salt", "extra_headers",
})  # fmt: skip
"""Further fields that say nothing of how answers are drawn."""


class Endpoint:
    """Answers the agents of episodes that are under way; listens from the first one on."""

    def __init__(self) -> None:
        self._captures: dict[str, Capture] = {}
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self.url = ""

    def begin(self, capture: Capture) -> str:
        """The key of an episode. Needs a running loop, which the server then runs in."""
        if self._serving is None:
            self._start()
        key = "strop-" + secrets.token_urlsafe(24)
        self._captures[key] = capture
        return key

    def end(self, key: str) -> None:
        """Answer it no longer."""
        self._captures.pop(key).end()

    async def close(self) -> None:
        if self._server is not None and self._serving is not None:
            self._server.should_exit = self._server.force_exit = True
            await self._serving

    def _start(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        config = uvicorn.Config(
            self._app(), log_level="warning", access_log=False, lifespan="off", ws="none"
        )
        self._server = uvicorn.Server(config)
        self._serving = asyncio.get_running_loop().create_task(self._server.serve([listening]))

    def _whose(self, authorization: Annotated[str, Header()] = "") -> Capture:
        capture = self._captures.get(authorization.removeprefix("Bearer "))
        if capture is None:
            raise HTTPException(401, "the key is that of no episode under way")
        return capture

    def _app(self) -> FastAPI:
        app = FastAPI(openapi_url=None)
        whose = Depends(self._whose)

        @app.exception_handler(HTTPException)
        async def refused(_: Any, error: HTTPException) -> JSONResponse:
            return _refusal(error.status_code, str(error.detail))

        @app.exception_handler(RequestValidationError)
        async def unread(_: Any, error: RequestValidationError) -> JSONResponse:
            return _refusal(400, _said_of(error))

        @app.exception_handler(TextError)
        async def unwritten(_: Any, error: TextError) -> JSONResponse:
            return _refusal(400, error.problem)  # what mends records mends no request

        @app.exception_handler(RecursionError)
        async def too_deep(_: Any, error: RecursionError) -> JSONResponse:
            return _refusal(400, "the request is nested too deeply")

        @app.exception_handler(LimitError)
        async def limited(_: Any, error: LimitError) -> JSONResponse:
            return _refusal(400, str(error), "context_length_exceeded")

        @app.get("/v1/models")
        async def models(capture: Capture = whose) -> dict[str, Any]:
            return {"object": "list", "data": [{"id": MODEL, "object": "model"}]}

        @app.post("/v1/chat/completions")
        async def chat(body: Chat, capture: Capture = whose) -> Response:
            _expect_free(body, capture)
            messages = [message.written() for message in body.messages]
            made, said, read = await capture.chat(messages, body.offered, body.most)
            _count_overruled(capture, body.more)
            answer = _chat_answer(made, said, read)
            if body.stream:
                return StreamingResponse(_events(answer), media_type="text/event-stream")
            return JSONResponse(answer)

        @app.post("/inference/v1/generate")
        @app.post("/v1/inference/v1/generate")
        async def generate(body: Generate, capture: Capture = whose) -> dict[str, Any]:
            how = body.sampling_params
            _expect_stops(how.stop, capture)
            made = await capture.generate(tuple(body.token_ids), how.max_tokens)
            _count_overruled(capture, {n: v for n, v in how.more.items() if n not in _TOKENS_ONLY})
            choice = choice_of(Answered(made, str(made.versions[-1].version)))
            return {"choices": [choice], "prompt_logprobs": None, "model": MODEL}

        return app


_TOKENS_ONLY = frozenset({
    "logprobs", "skip_special_tokens", "stop_token_ids", "seed", "detokenize",
    "include_stop_str_in_output", "spaces_between_special_tokens",
})  # fmt: skip
"""What vLLM's sampling parameters say beside how tokens are drawn."""


def _expect_free(body: Chat, capture: Capture) -> None:
    """Raise `HTTPException` for what the model in training cannot be made to do."""
    _expect_stops(body.stop, capture)
    if body.tool_choice not in (None, "auto", "none"):
        raise HTTPException(400, "the model in training is free to call: leave tool_choice out")
    if body.response_format is not None and body.response_format.type != "text":
        raise HTTPException(400, "the model in training is held to no form: leave response_format "
                                 "out")  # fmt: skip


def _expect_stops(stops: Sequence[str] | None, capture: Capture) -> None:
    if not set(stops or ()) <= set(capture.request.sampling.stop):
        said = ", ".join(map(repr, stops or ()))
        raise HTTPException(400, f"answers do not end at {said}: set rollout.stop in the recipe")


def _count_overruled(capture: Capture, given: Mapping[str, Any]) -> None:
    """Count a request that says another sampling than the run's."""
    run = capture.request.sampling
    same = {"temperature": run.temperature, "top_p": run.top_p, "top_k": run.top_k or -1,
            "min_p": run.min_p, "frequency_penalty": 0, "presence_penalty": 0,
            "repetition_penalty": 1}  # fmt: skip
    others = {
        name
        for name, value in given.items()
        if name not in READ_AS_IS and value is not None and value != same.get(name)
    }
    capture.overruled += bool(others)


def _said_of(error: RequestValidationError) -> str:
    """`messages.0.role: Field required`, and whatever else is wrong."""
    if any(one["type"] == "json_invalid" for one in error.errors()):
        return "the request is no JSON"
    return "; ".join(
        f"{'.'.join(map(str, one['loc'][1:])) or 'the request'}: "
        f"{one['msg'].removeprefix('Value error, ')}"
        for one in error.errors()
    )


def _refusal(status: int, said: str, code: str = "") -> JSONResponse:
    error = {"message": readable(said), "type": "invalid_request_error", "code": code or None}
    return JSONResponse({"error": error}, status)


def _chat_answer(made: Completion, said: SaidTurn, read: int) -> dict[str, Any]:
    """A whole answer in OpenAI's form."""
    message = dict(said.message)
    if said.calls:
        message["tool_calls"] = [
            {**call, "function": {**call["function"],
                                  "arguments": json.dumps(call["function"]["arguments"])}}
            for call in message["tool_calls"]
        ]  # fmt: skip
    finish = "tool_calls" if said.calls and made.finish == "stop" else made.finish
    used = {"prompt_tokens": read, "completion_tokens": len(made.ids),
            "total_tokens": read + len(made.ids)}  # fmt: skip
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}", "object": "chat.completion",
        "created": int(time.time()), "model": MODEL, "usage": used,
        "choices": [{"index": 0, "message": message, "finish_reason": finish,
                     "token_ids": list(made.ids)}],
    }  # fmt: skip


async def _events(answer: dict[str, Any]) -> AsyncIterator[str]:
    """An answer as a stream of one piece: it is there only when it is whole."""
    choice = answer["choices"][0]
    delta = dict(choice["message"])
    if delta.get("tool_calls"):
        delta["tool_calls"] = [{**call, "index": n} for n, call in enumerate(delta["tool_calls"])]
    frame = {**answer, "object": "chat.completion.chunk"}
    usage = frame.pop("usage")
    for piece, finish in ((delta, None), ({}, choice["finish_reason"])):
        choices = [{"index": 0, "delta": piece, "finish_reason": finish}]
        yield f"data: {json.dumps({**frame, 'choices': choices})}\n\n"
    yield f"data: {json.dumps({**frame, 'choices': [], 'usage': usage})}\n\n"
    yield "data: [DONE]\n\n"
