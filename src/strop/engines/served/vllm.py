"""A server that speaks vLLM's protocol: vLLM 0.32, or `strop engine serve`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from strop.engines.broadcast import BACKEND, BOTH, RECEIVER, Pair, forms_of, meeting_place
from strop.engines.draws import seed_of
from strop.engines.engine import Request
from strop.engines.routes import routes_of_text
from strop.engines.served.server import CONTROL_SECONDS, About, Body, Calls, Said, Scored, spans_of
from strop.errors import HttpError
from strop.types import Finish, Routes

FINISHES: Mapping[str | None, Finish] = {
    "stop": "stop", "length": "length", "abort": "aborted", "error": "error",
}  # fmt: skip


class VllmServer:
    """A `Server`. Every sample is one request, with a seed of its own: the children of vLLM's `n`
    have seeds that follow each other, so that those of two prompts would share draws."""

    def __init__(self, url: str, *, seconds: float) -> None:
        self._calls = Calls(url, seconds=seconds)
        self.url = self._calls.url

    def about(self) -> About:
        return self._calls.models()

    def expect_usable(self, prompt_ids: Sequence[int]) -> None:
        """vLLM says nothing of how it was started: the self-check before step 1 finds log-probs of
        another distribution."""

    def encoded(self, body: Body) -> list[int] | None:
        return self._calls.tokens(body)

    def sample(self, request: Request, adapter: str | None, stop_ids: Sequence[int]) -> Said:
        said = self._calls.ask("inference/v1/generate", body_of(request, adapter, stop_ids))
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

    def receive(self, weights: Mapping[str, torch.Tensor], name: str) -> None:
        """As `strop engine serve` takes them. This side of the pair runs in another thread, because
        a server that refuses would never come."""
        place = meeting_place(self.url)
        address, port = place.getsockname()[:2]
        init = {"master_address": address, "master_port": port, "rank_offset": RECEIVER,
                "world_size": BOTH, "backend": BACKEND}  # fmt: skip
        forms = forms_of(weights)
        update = {"names": [form.name for form in forms],
                  "dtype_names": [form.dtype for form in forms],
                  "shapes": [list(form.shape) for form in forms]}  # fmt: skip
        given_up = threading.Event()
        thread = threading.Thread(target=_send, args=(place, given_up, weights), daemon=True)
        thread.start()
        try:
            self._calls.tell("init_weight_transfer_engine", {"init_info": init})
            self._calls.tell("update_weights", {"update_info": update})
        finally:
            given_up.set()
            thread.join()
        self._calls.tell("finish_weight_update", {"weight_version": name})


def _send(
    place: socket.socket, given_up: threading.Event, weights: Mapping[str, torch.Tensor]
) -> None:
    """What goes wrong here goes wrong there, too, and is said by the server."""
    with suppress(RuntimeError):
        Pair.sender(place, given_up, seconds=CONTROL_SECONDS).send(weights)


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
