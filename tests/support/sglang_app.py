"""The routes of SGLang 0.5.23 that a run asks, over a real model of the test's own.

Written from the facts of SGLang's source (`srt/entrypoints/http_server.py`, `srt/managers/
io_struct.py`, `srt/layers/sampler.py`, `srt/sampling/sampling_params.py`); nobody has compared it
with a real SGLang. Bodies are strict: a field that SGLang does not know is refused, as there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from fastapi import Body, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from strop.engines import engine as asked
from strop.engines.draws import DrawKey
from strop.engines.server import streams
from strop.engines.server.app import done
from strop.engines.server.held import Held
from strop.engines.server.lanes import Progress
from strop.engines.server.streams import DONE, Sample, Streamed, event, unless_gone
from strop.errors import UsageError
from strop.model.logprobs import Head
from strop.types import Branch, Origin, Task, Tree

c10d: Any = torch.distributed.distributed_c10d
"""Its type stubs leave out what is used here."""

SEED = 42
"""What a request without a seed is drawn with."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class SamplingParams(Strict):
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = -1
    min_p: float = Field(0.0, ge=0, le=1)
    max_new_tokens: int = Field(128, ge=0)
    stop: list[str] = []
    stop_token_ids: list[int] = []
    sampling_seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    skip_special_tokens: bool = True


class Generate(Strict):
    input_ids: list[int]
    sampling_params: SamplingParams
    return_logprob: bool = False
    logprob_start_len: int = -1
    top_logprobs_num: int = 0
    stream: bool = False
    lora_path: str | None = None


class FromDisk(Strict):
    model_path: str
    flush_cache: bool = True
    abort_all_requests: bool = False
    weight_version: str | None = None


class InitGroup(Strict):
    master_address: str
    master_port: int
    rank_offset: int
    world_size: int
    group_name: str = "weight_update_group"
    backend: str = "nccl"


class DestroyGroup(Strict):
    group_name: str = "weight_update_group"


class FromDistributed(Strict):
    names: list[str]
    dtypes: list[str]
    shapes: list[list[int]]
    group_name: str = "weight_update_group"
    flush_cache: bool = True
    abort_all_requests: bool = False
    weight_version: str | None = None


class Memory(Strict):
    tags: list[str] | None = None


class Lora(Strict):
    lora_name: str
    lora_path: str = ""


@dataclass(slots=True)
class Sglang:
    """How the server was started, and what is wrong with it."""

    deterministic: bool = True
    original_logprobs: bool = False
    incremental: bool = False
    preferred: dict[str, Any] | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    abort: Callable[[asked.Request], bool] = lambda request: False

    def app(self, held: Held) -> FastAPI:
        held.version = "default"
        app = FastAPI()
        _add_what_it_says(app, held, self)
        _add_generate(app, held, self)
        _add_weights(app, held)
        _add_transfers(app, held)
        return app


def _add_what_it_says(app: FastAPI, held: Held, how: Sglang) -> None:
    served = [held.path]
    app.state.served = served

    @app.get("/v1/models")
    def models() -> Any:
        base = {"id": served[0], "max_model_len": held.context, "parent": None}
        loras = [{"id": name, "parent": served[0], "max_model_len": None}
                 for name in held.adapters]  # fmt: skip
        return {"object": "list", "data": [base, *loras]}

    @app.get("/model_info")
    def model_info() -> Any:
        return {"model_path": served[0], "tokenizer_path": held.path,
                "preferred_sampling_params": how.preferred,
                "weight_version": held.version}  # fmt: skip

    @app.get("/server_info")
    def server_info() -> Any:
        return {"enable_deterministic_inference": how.deterministic, "version": "0.5.23",
                "device": "cpu", "tp_size": 1, "pp_size": 1, "dp_size": 1, "quantization": None,
                "enable_memory_saver": False, "enable_weights_cpu_backup": False,
                **how.arguments}  # fmt: skip

    @app.post("/tokenize")
    def tokenize(body: Annotated[dict[str, Any], Body()]) -> Any:
        tokenizer = held.policy.tokenizer
        if "messages" in body:
            ids = tokenizer.apply_chat_template(
                body["messages"], add_generation_prompt=body["add_generation_prompt"],
                return_dict=False,
            )  # fmt: skip
        else:
            special = body.get("add_special_tokens", True)
            ids = tokenizer(body["prompt"], add_special_tokens=special).input_ids
        return {"tokens": list(ids), "count": len(ids)}


def _add_generate(app: FastAPI, held: Held, how: Sglang) -> None:
    drawn = iter(range(1 << 30))

    @app.post("/generate")
    async def generate(body: Generate, http: Request) -> Any:
        wanted = body.sampling_params
        if wanted.top_k != -1 and wanted.top_k < 1:
            raise HTTPException(400, f"top_k must be -1 (disable) or at least 1: {wanted.top_k}")
        if len(body.input_ids) + wanted.max_new_tokens > (held.context or 0):
            raise HTTPException(400, "Requested token count exceeds the model's maximum context")
        if body.lora_path is not None and body.lora_path not in held.adapters:
            raise HTTPException(400, f"Got LoRA adapter that has never been loaded: {body}")
        seed = SEED if wanted.sampling_seed is None else wanted.sampling_seed
        request = _request_of(body, seed if how.deterministic else next(drawn))
        if body.stream:
            sample = partial(held.sample, request, body.lora_path)
            return Streamed(_events(held, how, body, sample), AsyncExitStack(), None, {})
        said = await unless_gone(http, done(held.sample(request, body.lora_path)))
        made, ids = said.what, list(said.what.ids)
        about: dict[str, Any] = {"id": "0", "weight_version": said.version,
                                 "finish_reason": {"type": made.finish}}  # fmt: skip
        if how.abort(request):
            ids = ids[: len(ids) // 2]
            about["finish_reason"] = {"type": "abort", "message": "Aborted", "status_code": None}
        if body.return_logprob:
            scaled = _scale(how, wanted)
            given = body.input_ids
            outputs = await _scores(held, body.lora_path, (tuple(given), tuple(ids)), scaled)
            pairs = zip(outputs, ids, strict=True)
            about["output_token_logprobs"] = [[x, i, None] for x, i in pairs]
            if body.logprob_start_len == 0:
                inputs = await _scores(held, body.lora_path, ((given[0],), tuple(given[1:])), 1.0)
                about["input_token_logprobs"] = [[None, given[0], None], *(
                    [x, i, None] for x, i in zip(inputs, given[1:], strict=True))]  # fmt: skip
            if body.top_logprobs_num:
                about["output_top_logprobs"] = [
                    await _likeliest(held, given, body.top_logprobs_num, scaled)
                ]
        return {"text": made.text, "output_ids": ids, "meta_info": about}


def _scale(how: Sglang, wanted: SamplingParams) -> float:
    """The temperature that log-probs know."""
    return wanted.temperature if wanted.temperature and not how.original_logprobs else 1.0


async def _events(held: Held, how: Sglang, body: Generate, sample: Sample) -> AsyncGenerator[str]:
    """Every event has all tokens so far, or the new ones alone where it is `incremental`; a text
    that is not in ASCII stands in it as it is."""
    ids: list[int] = []
    listed: list[Any] = []
    stream = streams.drawn([sample])
    async with aclosing(stream):
        async for _, what in stream:
            first, finish = len(ids), None
            if isinstance(what, Progress):
                ids += what.ids
                found = await _scores(held, body.lora_path, (tuple(body.input_ids), tuple(ids)),
                                      _scale(how, body.sampling_params))  # fmt: skip
                pairs = zip(found[first:], ids[first:], strict=True)
                listed += [[x, i, None] for x, i in pairs]
            else:
                finish = {"type": what.what.finish}
            shown = first if how.incremental else 0
            about = {"id": "0", "weight_version": held.version, "finish_reason": finish,
                     "completion_tokens": len(ids), "output_token_logprobs": listed[shown:],
                     "output_token_logprobs_length": len(listed)}  # fmt: skip
            yield event({"text": "a\u2028b", "output_ids": ids[shown:], "meta_info": about})
    yield DONE


def _request_of(body: Generate, seed: int) -> asked.Request:
    how = body.sampling_params
    sampling = asked.Sampling(
        temperature=how.temperature, top_p=how.top_p, top_k=max(how.top_k, 0), min_p=how.min_p,
        max_tokens=how.max_new_tokens, stop=tuple(how.stop),
        skip_special_tokens=how.skip_special_tokens,
    )  # fmt: skip
    prompt = asked.PromptedTask(Task("", {}, Origin("request", 0)), tuple(body.input_ids))
    return asked.Request(prompt, sampling, DrawKey(seed, "served"))


async def _scores(
    held: Held, adapter: str | None, ids: tuple[tuple[int, ...], tuple[int, ...]],
    temperature: float,
) -> list[float]:  # fmt: skip
    """Log-probs of the second ids after the first, at a temperature."""
    if not ids[1]:
        return []
    tree = Tree(ids[0], (Branch(ids[1], (True,) * len(ids[1])),))

    @torch.no_grad()
    def scored() -> list[float]:
        found = held.policy.score([tree], Head(temperature=temperature)).logprobs_N
        return [float(one) for one in found]

    return list(await done(held._put(adapter, None, scored)))


async def _likeliest(held: Held, ids: list[int], count: int, temperature: float) -> Any:
    @torch.no_grad()
    def found() -> Any:
        logits_V = held.policy.model(torch.tensor([ids])).logits[0, -1].float() / temperature
        top = logits_V.log_softmax(-1).topk(count)
        return [[x, i, None] for x, i in zip(*map(torch.Tensor.tolist, top), strict=True)]

    return await done(held._put(None, None, found))


def _add_weights(app: FastAPI, held: Held) -> None:
    @app.post("/update_weights_from_disk")
    async def update(body: FromDisk, response: Response) -> Any:
        try:
            await done(held.reload(body.model_path))
        except UsageError as error:
            response.status_code = 400
            return {"success": False, "message": str(error), "num_paused_requests": 0}
        app.state.served[0] = body.model_path
        await done(held.call_weights(body.weight_version or held.version))
        return {"success": True, "message": "Succeeded", "num_paused_requests": 0}

    @app.post("/load_lora_adapter")
    async def load(body: Lora, response: Response) -> Any:
        if not Path(body.lora_path).is_dir() or body.lora_name in held.adapters:
            response.status_code = 400
            return {"success": False, "error_message": f"cannot load {body}"}
        await done(held.load_adapter(body.lora_name, body.lora_path))
        return {"success": True, "loaded_adapters": dict.fromkeys(held.adapters, "")}

    @app.post("/unload_lora_adapter")
    async def unload(body: Lora, response: Response) -> Any:
        if body.lora_name not in held.adapters:
            response.status_code = 400
            return {"success": False, "error_message": f"{body.lora_name} is not loaded"}
        await done(held.unload_adapter(body.lora_name))
        return {"success": True, "loaded_adapters": dict.fromkeys(held.adapters, "")}


def _add_transfers(app: FastAPI, held: Held) -> None:
    """Weights by a group of torch's, made as SGLang makes it; sleep is only noted."""
    groups: dict[str, Any] = {}
    app.state.slept = slept = list[str]()

    @app.post("/init_weights_update_group")
    def init(body: InitGroup) -> Any:
        timeout = timedelta(seconds=60)
        where = f"tcp://{body.master_address}:{body.master_port}"
        store, rank, size = next(
            c10d.rendezvous(where, body.rank_offset, body.world_size, timeout=timeout)
        )
        store.set_timeout(timeout)
        groups[body.group_name] = c10d._new_process_group_helper(
            size, rank, [], c10d.Backend(body.backend), c10d.PrefixStore(body.group_name, store),
            group_name=body.group_name, timeout=timeout,
        )[0]  # fmt: skip
        c10d._world.pg_group_ranks[groups[body.group_name]] = {n: n for n in range(size)}
        return {"success": True, "message": "Succeeded"}

    @app.post("/update_weights_from_distributed")
    def update(body: FromDistributed) -> Any:
        came = {}
        for name, dtype, shape in zip(body.names, body.dtypes, body.shapes, strict=True):
            came[name] = torch.empty(shape, dtype=getattr(torch, dtype))
            torch.distributed.broadcast(came[name], src=0, group=groups[body.group_name])
        held.take(came, body.weight_version or held.version).result()
        return {"success": True, "message": "Succeeded"}

    @app.post("/destroy_weights_update_group")
    def destroy(body: DestroyGroup) -> Any:
        torch.distributed.destroy_process_group(groups.pop(body.group_name))
        return {"success": True, "message": "Succeeded"}

    @app.post("/release_memory_occupation")
    def release(body: Memory) -> Response:
        slept.append("release")
        return Response()

    @app.post("/resume_memory_occupation")
    def resume(body: Memory) -> Response:
        slept.append("resume")
        return Response()
