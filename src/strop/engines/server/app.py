"""The routes of a model's server: those of vLLM's protocol that strop itself asks for, and OpenAI's
completions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from strop.engines import engine as asked
from strop.engines.broadcast import BACKEND
from strop.engines.draws import DrawKey
from strop.engines.routes import routes_text
from strop.engines.server.held import Held
from strop.engines.server.lanes import Answered, Progress
from strop.engines.server.receive import add_transfer
from strop.engines.server.streams import (
    DONE,
    Drawn,
    GoneError,
    Sample,
    Streamed,
    drawn,
    event,
    unless_gone,
)
from strop.errors import StropError, UsageError
from strop.types import Completion, Origin, Task

Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


PAUSED_AT_MOST = 300.0
"""Seconds after which a pause ends by itself."""


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class SamplingParams(Body):
    """vLLM's names; with `prompt_logprobs` the given tokens are scored and nothing is sampled that
    anyone reads."""

    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, lt=1)
    max_tokens: int = Field(16, ge=1)
    seed: int = 0
    stop: list[str] = []
    stop_token_ids: list[int] = []
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    logprobs: Literal[0] | None = None
    prompt_logprobs: Literal[0] | None = None


class Generate(Body):
    token_ids: Ids
    sampling_params: SamplingParams
    model: str | None = None
    stream: bool = False


class Completions(Body):
    """OpenAI's, for one prompt: a text or ids."""

    model: str | None = None
    prompt: str | Ids
    max_tokens: int = Field(16, ge=1)
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int = 0
    stop: str | list[str] = []
    return_token_ids: bool = False


class Tokenize(Body):
    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True


class LoadAdapter(Body):
    lora_name: str = Field(min_length=1, pattern=r"^[^./]+$")
    lora_path: str


class UnloadAdapter(Body):
    lora_name: str


class Reload(BaseModel):
    model_config = ConfigDict(extra="forbid")

    weights_path: str


class Call(Body):
    """The one call of vLLM's `/collective_rpc` that is understood."""

    method: Literal["reload_weights"]
    kwargs: Reload


class Version(Body):
    new_version: str


def engine_app(held: Held) -> FastAPI:
    """The routes; a request that cannot be met has status 400 and says why."""
    app = FastAPI(title="strop engine", openapi_url=None)

    @app.exception_handler(StropError)
    async def refused(_: Request, error: StropError) -> JSONResponse:
        return JSONResponse({"error": {"message": str(error)}}, 400)

    @app.exception_handler(GoneError)
    async def gone(_: Request, __: GoneError) -> Response:
        return Response(status_code=499)

    going = asyncio.Event()
    going.set()
    _add_answers(app, held, going)
    _add_weights(app, held)
    _add_pauses(app, going)
    add_transfer(app, held)
    return app


def _add_answers(app: FastAPI, held: Held, going: asyncio.Event) -> None:
    tokenizer = held.policy.tokenizer
    ends = held.ends

    def adapter_of(model: str | None) -> str | None:
        return None if model in (None, held.path) else model

    @app.get("/health")
    def health() -> Response:
        return Response()

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        base = {"id": held.path, "object": "model", "max_model_len": held.context, "parent": None}
        adapters = [{"id": name, "object": "model", "parent": held.path}
                    for name in sorted(held.adapters)]  # fmt: skip
        return {"object": "list", "data": [base, *adapters]}

    @app.post("/tokenize")
    def tokenize(body: Tokenize) -> dict[str, Any]:
        if body.messages is not None:
            ids = tokenizer.apply_chat_template(
                body.messages, add_generation_prompt=body.add_generation_prompt, return_dict=False
            )
        else:
            ids = tokenizer(body.prompt or "", add_special_tokens=body.add_special_tokens).input_ids
        return {"tokens": list(ids), "count": len(ids), "max_model_len": held.context}

    @app.post("/inference/v1/generate", response_model=None)
    async def generate(body: Generate, request: Request) -> dict[str, Any] | Response:
        how, adapter = body.sampling_params, adapter_of(body.model)
        expect_ends(how.stop_token_ids, ends)
        answer: dict[str, Any] = {"choices": [], "prompt_logprobs": None, "model": body.model}
        if how.prompt_logprobs is not None:
            expect_whole(body)
            said = await unless_gone(request, done(held.score(body.token_ids, adapter)))
            scored = zip(body.token_ids[1:], said.what, strict=True)
            listed = [{str(token): {"logprob": logprob}} for token, logprob in scored]
            nothing = Answered(Completion.one_turn((), "", (), "length", 0), said.version)
            return answer | {"prompt_logprobs": [None, *listed], "choices": [choice_of(nothing)]}
        await unless_gone(request, going.wait())
        wanted = request_of(body, routes=held.routes)
        if body.stream:
            sample, holds = partial(held.sample, wanted, adapter), AsyncExitStack()
            begins = streamed(sample, {"model": body.model}, holds)
            return Streamed(await unless_gone(request, begins), holds, None, {})
        made = await unless_gone(request, done(held.sample(wanted, adapter)))
        return answer | {"choices": [choice_of(made)]}

    @app.post("/v1/completions")
    async def completions(body: Completions, request: Request) -> dict[str, Any]:
        given = body.prompt
        ids = tokenizer(given).input_ids if isinstance(given, str) else given
        stop = [body.stop] if isinstance(body.stop, str) else body.stop
        how = SamplingParams(max_tokens=body.max_tokens, temperature=body.temperature,
                             top_p=body.top_p, seed=body.seed, stop=stop)  # fmt: skip
        asked_for = Generate(token_ids=ids, sampling_params=how, model=body.model)
        drawing = held.sample(request_of(asked_for), adapter_of(body.model))
        said = await unless_gone(request, done(drawing))
        made = said.what
        choice: dict[str, Any] = {"index": 0, "text": made.text, "finish_reason": made.finish,
                                  "logprobs": None}  # fmt: skip
        if body.return_token_ids:
            choice |= {"token_ids": list(made.ids), "prompt_token_ids": list(ids)}
        used = {"prompt_tokens": len(ids), "completion_tokens": len(made.ids),
                "total_tokens": len(ids) + len(made.ids)}  # fmt: skip
        return {"object": "text_completion", "created": int(time.time()), "usage": used,
                "model": body.model or held.path, "choices": [choice]}  # fmt: skip


def _add_weights(app: FastAPI, held: Held) -> None:
    @app.post("/v1/load_lora_adapter")
    async def load_adapter(body: LoadAdapter) -> Response:
        if not Path(body.lora_path).is_dir():
            raise UsageError("there is no such folder here", where=body.lora_path,
                             fix="give a path that this server sees, too")  # fmt: skip
        await done(held.load_adapter(body.lora_name, body.lora_path))
        return Response()

    @app.post("/v1/unload_lora_adapter")
    async def unload_adapter(body: UnloadAdapter) -> Response:
        await done(held.unload_adapter(body.lora_name))
        return Response()

    @app.post("/collective_rpc")
    async def call(body: Call) -> dict[str, Any]:
        await done(held.reload(body.kwargs.weights_path))
        return {"results": [None]}

    @app.post("/reset_prefix_cache")
    async def reset_prefix_cache() -> Response:
        await done(held.forget_prefixes())
        return Response()

    @app.post("/update_weight_version")
    async def update_weight_version(body: Version) -> dict[str, Any]:
        await done(held.call_weights(body.new_version))
        return {"success": True, "new_version": body.new_version}

    @app.get("/server_info")
    def server_info() -> dict[str, Any]:
        """As vLLM says it with `config_format=json`."""
        return {"vllm_config": {
            "model_config": {"quantization": held.quantization(), "enable_sleep_mode": False},
            "parallel_config": {"world_size": 1, "data_parallel_size": 1},
            "weight_transfer_config": {"backend": BACKEND},
        }}  # fmt: skip

    @app.get("/weight_info")
    def weight_info() -> dict[str, str]:
        return {"weight_version": held.version}


def _add_pauses(app: FastAPI, going: asyncio.Event) -> None:
    ends: list[asyncio.TimerHandle] = []

    def go_on() -> None:
        going.set()
        while ends:
            ends.pop().cancel()

    @app.post("/pause")
    async def pause(mode: Literal["keep"]) -> dict[str, str]:
        """What comes from now on waits. What began before keeps its weights: these change only when
        it is done. Whoever asked for it may have died."""
        go_on()
        going.clear()
        ends.append(asyncio.get_running_loop().call_later(PAUSED_AT_MOST, go_on))
        return {"status": "paused"}

    @app.post("/resume")
    async def resume() -> dict[str, str]:
        go_on()
        return {"status": "resumed"}


async def done(future: Future[Any]) -> Any:
    """What a job came to."""
    return await asyncio.wrap_future(future)


async def streamed(
    sample: Sample, more: Mapping[str, Any], holds: AsyncExitStack
) -> AsyncGenerator[str]:
    """An answer in vLLM's form, as server-sent events with these fields more. It is there when the
    first token is: what is refused is raised. With `holds` the drawing ends, too."""
    stream = drawn([sample])
    holds.push_async_callback(stream.aclose)
    return _events(await anext(stream), stream, more)


async def _events(
    first: Drawn,
    stream: AsyncGenerator[Drawn],
    more: Mapping[str, Any],
) -> AsyncGenerator[str]:
    yield event({"choices": [part_of(first[1])], **more})
    try:
        async for _, what in stream:
            yield event({"choices": [part_of(what)], **more})
    except StropError as error:
        yield event({"error": {"message": str(error)}})
    yield DONE


def expect_whole(body: Generate) -> None:
    """Raise `UsageError` where given tokens are to be scored as a stream."""
    if body.stream:
        raise UsageError("log-probs of given tokens are not streamed", fix="ask without `stream`")


def expect_ends(wanted: list[int], ends: frozenset[int]) -> None:
    """Raise `UsageError` for tokens to stop at that are no ends of this model's answers."""
    if unknown := sorted(set(wanted) - ends):
        raise UsageError(
            f"answers end at the tokens {sorted(ends)} here, not at {unknown}",
            fix="serve a model with the generation config of the one that is trained",
        )


def request_of(body: Generate, *, routes: bool = False) -> asked.Request:
    """The draw depends on the seed and the prompt alone, not on what else is asked."""
    how = body.sampling_params
    sampling = asked.Sampling(
        temperature=how.temperature, top_p=how.top_p, top_k=how.top_k, min_p=how.min_p,
        max_tokens=how.max_tokens, stop=tuple(how.stop),
        include_stop_str_in_output=how.include_stop_str_in_output,
        skip_special_tokens=how.skip_special_tokens,
        routes=routes,
    )  # fmt: skip
    prompt = asked.PromptedTask(Task("", {}, Origin("request", 0)), tuple(body.token_ids))
    return asked.Request(prompt, sampling, DrawKey(how.seed, "served"))


def choice_of(said: Answered[Completion]) -> dict[str, Any]:
    """A choice in vLLM's form."""
    made = said.what
    return {**_tokens(made.ids, made.sampler_logprobs()), **_end_of(said)}


def part_of(what: Progress | Answered[Completion]) -> dict[str, Any]:
    """A part of a choice: tokens, or, with none, what is said of all of them at its end."""
    if isinstance(what, Progress):
        said = {"finish_reason": None, "weight_versions": None, "routed_experts": None}
        return {**_tokens(what.ids, what.logprobs), **said}
    return {**_tokens((), ()), **_end_of(what)}


def _tokens(ids: Sequence[int], logprobs: Sequence[float]) -> dict[str, Any]:
    listed = [{"token": f"token_id:{i}", "token_id": i, "logprob": x}
              for i, x in zip(ids, logprobs, strict=True)]  # fmt: skip
    return {"index": 0, "token_ids": list(ids), "logprobs": {"content": listed}}


def _end_of(said: Answered[Completion]) -> dict[str, Any]:
    made = said.what
    span = {"version": said.version, "start": 0, "end": len(made.ids)}
    return {"finish_reason": made.finish, "weight_versions": [span],
            "routed_experts": routes_text(made)}  # fmt: skip
