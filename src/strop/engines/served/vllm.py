"""A server that speaks vLLM's protocol: vLLM 0.32, or `strop engine serve`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from strop.engines.draws import seed_of
from strop.engines.engine import Request, expect_served
from strop.engines.routes import routes_of_text
from strop.engines.served.sending import VLLM
from strop.engines.served.server import (
    About,
    Body,
    Calls,
    Part,
    Said,
    Scored,
    Started,
    Tell,
    spans_of,
)
from strop.errors import HttpError
from strop.types import Finish, Routes

FINISHES: Mapping[str | None, Finish] = {
    "stop": "stop", "length": "length", "abort": "aborted", "error": "error",
}  # fmt: skip


class VllmServer:
    """A `Server`. Every sample is one request, with a seed of its own: the children of vLLM's `n`
    have seeds that follow each other, so that those of two prompts would share draws.

    vLLM 0.32 that may get adapters takes their part of the head for the wrong rows where several
    texts are scored together, and ends; it does not say whether it may get them."""

    scores_together = False

    def __init__(self, url: str, *, seconds: float) -> None:
        self._calls = Calls(url, seconds=seconds)
        self.url = self._calls.url

    def about(self) -> About:
        return self._calls.models()

    def expect_usable(self, prompt_ids: Sequence[int]) -> None:
        """vLLM says nothing of how it was started: the self-check before step 1 finds log-probs of
        another distribution."""

    def started(self) -> Started | None:
        """vLLM says it in its dev mode alone (`VLLM_SERVER_DEV_MODE`)."""
        try:
            return started_of(self._calls.read("server_info?config_format=json"), self.url)
        except HttpError as error:
            if error.status == 404:
                return None
            raise

    def encoded(self, body: Body) -> list[int] | None:
        return self._calls.tokens(body)

    def sample(
        self,
        request: Request,
        adapter: str | None,
        stop_ids: Sequence[int],
        *,
        tell: Tell | None = None,
        waiting: Future[Any] | None = None,
    ) -> Said:
        expect_served(request.sampling, self.url)
        route, body = "inference/v1/generate", body_of(request, adapter, stop_ids)
        if tell is None:
            said = self._calls.ask(route, body, waiting)
        else:
            said = whole_of(self._calls.hear(route, body, waiting), tell, self.url)
        read = said_of(said, self.url)
        if not request.sampling.routes or not read.ids:
            return read
        return replace(read, routes=routes_of_answer(said, request, len(read.ids), self.url))

    def score(self, ids: Sequence[int], adapter: str | None) -> Scored:
        said = self._calls.ask("inference/v1/generate", scoring_body(ids, adapter))
        return scored(said, ids, self.url)

    def load_adapter(self, name: str, folder: Path) -> None:
        self._calls.tell("v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})

    def unload_adapter(self, name: str, *, leaving: bool = False) -> None:
        self._calls.tell("v1/unload_lora_adapter", {"lora_name": name}, leaving=leaving)

    def reload(self, folder: Path) -> None:
        """Answers on their way stand still meanwhile, and go on with the new weights. The name
        comes first: a server that is restarted in between has lost it, whereas the other way round
        its first weights would get it."""
        how = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        self._calls.tell("pause?mode=keep", {})
        try:
            self._calls.tell("update_weight_version", {"new_version": folder.name})
            self._calls.tell("collective_rpc", how)
            self._calls.tell("reset_prefix_cache", {})
        finally:
            self._calls.tell("resume", {})

    def receive(self, weights: Mapping[str, torch.Tensor], name: str, way: str) -> None:
        VLLM[way](self._calls, weights, name)

    def sleep(self) -> None:
        """Level 1: the weights are kept in the memory of the CPU, because nothing says that others
        will come before the next request."""
        self._calls.tell("sleep?level=1&mode=wait", {})

    def wake_up(self, *, leaving: bool = False) -> None:
        self._calls.tell("wake_up", {}, leaving=leaving)


def started_of(said: Any, url: str) -> Started:
    """Of vLLM's configuration. Raises `HttpError` for one of another form."""
    try:
        config = said["vllm_config"]
        transfer, model = config["weight_transfer_config"], config["model_config"]
        parallel = config["parallel_config"]
        return Started(
            quantization=model["quantization"],
            workers=int(parallel["world_size"]) * int(parallel["data_parallel_size"]),
            transfers=frozenset() if transfer is None else frozenset({str(transfer["backend"])}),
            sleeps=bool(model["enable_sleep_mode"]),
        )
    except (KeyError, TypeError, ValueError):
        raise HttpError("what it says of its configuration is of another form",
                        where=f"{url}/server_info", status=200) from None  # fmt: skip


def body_of(request: Request, adapter: str | None, stop_ids: Sequence[int]) -> Body:
    """A request as `/inference/v1/generate` reads it."""
    sampling = request.sampling
    return _asked_of(adapter, request.prompt.prompt_ids) | {
        "sampling_params": {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "max_tokens": sampling.max_tokens,
            "seed": seed_of(request.key),
            "stop": list(sampling.stop),
            "stop_token_ids": list(stop_ids),
            "include_stop_str_in_output": sampling.include_stop_str_in_output,
            "skip_special_tokens": sampling.skip_special_tokens,
            "logprobs": 0,
        },
    }


def whole_of(events: Iterable[Any], tell: Tell, url: str) -> Any:
    """The answer that a stream comes to, in the form of one that comes whole. Every event has the
    tokens that are new; the last one has none, or some, and says what is said of all of them.

    Raises `HttpError` for events of another form, and for a stream that does not say its end.
    """
    ids: list[int] = []
    content: list[Any] = []
    last: dict[str, Any] | None = None
    for event in events:
        for choice in _choices(event, url):
            part = _part_of(choice, url)
            ids += part.ids
            content += choice["logprobs"]["content"]
            last = choice
            if part.ids:
                tell(part)
    if last is None or last.get("finish_reason") is None:
        raise HttpError("the stream ended, and the answer did not", where=url)
    return {"choices": [{**last, "token_ids": ids, "logprobs": {"content": content}}]}


def _choices(event: Any, url: str) -> list[Any]:
    """An event about usage has none."""
    if not isinstance(event, dict) or not isinstance(event.get("choices"), list):
        raise HttpError("an event of the stream has no choices", where=url)
    return list(event["choices"])


def _part_of(choice: Any, url: str) -> Part:
    try:
        ids = tuple(int(i) for i in choice["token_ids"])
        logprobs = tuple(float(one["logprob"]) for one in choice["logprobs"]["content"])
    except (KeyError, TypeError, ValueError):
        raise HttpError("a part of the answer has no tokens with log-probs", where=url) from None
    if len(ids) != len(logprobs):
        raise HttpError(f"{len(ids)} tokens came with {len(logprobs)} log-probs", where=url)
    return Part(ids, logprobs)


def said_of(said: Any, url: str) -> Said:
    """The answer. Raises `HttpError` for one of another form."""
    try:
        choice = said["choices"][0]
        ids = tuple(int(i) for i in choice["token_ids"])
        logprobs = tuple(float(one["logprob"]) for one in choice["logprobs"]["content"])
        finish = FINISHES[choice["finish_reason"]]
        spans = spans_of(choice.get("weight_versions") or ())
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        raise HttpError("the answer has no tokens with log-probs", where=url) from None
    if len(ids) != len(logprobs):
        raise HttpError(f"{len(ids)} tokens came with {len(logprobs)} log-probs", where=url)
    return Said(ids, logprobs, finish, spans)


def routes_of_answer(said: Any, request: Request, length: int, url: str) -> tuple[Routes, Routes]:
    """The routes of a prompt and of an answer of so many tokens. Raises `HttpError` for an answer
    without them."""
    given = said["choices"][0].get("routed_experts")
    if given is None:
        raise HttpError("the answer does not say which experts its tokens went to", where=url)
    return routes_of_text(given, len(request.prompt.prompt_ids), length, url)


def scoring_body(ids: Sequence[int], adapter: str | None) -> Body:
    """Asks for the log-probs of given tokens, and for one further token, which nobody reads."""
    how = {"temperature": 1.0, "max_tokens": 1, "prompt_logprobs": 0}
    return _asked_of(adapter, ids) | {"sampling_params": how}


def scored(said: Any, ids: Sequence[int], url: str) -> Scored:
    """The log-prob of every given token but the first. Raises `HttpError` for an answer of another
    form."""
    try:
        listed = said["prompt_logprobs"]
        places = range(1, len(ids))
        found = tuple(float(listed[place][str(ids[place])]["logprob"]) for place in places)
        spans = [span for one in said["choices"] for span in one.get("weight_versions") or ()]
        return Scored(found, spans_of(spans))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        raise HttpError("the answer has no log-probs of the given tokens", where=url) from None


def _asked_of(adapter: str | None, ids: Sequence[int]) -> Body:
    """A server that is asked of no model answers by the one it was started with."""
    named = {} if adapter is None else {"model": adapter}
    return {**named, "token_ids": list(ids)}
