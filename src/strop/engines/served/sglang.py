"""A server that speaks SGLang's native protocol (0.5.23).

Facts, from SGLang's source: `srt/entrypoints/http_server.py` (the routes), `srt/managers/
io_struct.py` (their bodies), `srt/layers/sampler.py` (which log-probs), `srt/sampling/
sampling_batch_info.py` (seeds), `srt/managers/tokenizer_manager.py` (what events of a stream say).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from strop.engines.draws import seed_of
from strop.engines.engine import Request, Sampling, expect_served
from strop.engines.served.sending import SGLANG, sglang_workers
from strop.engines.served.server import (
    About,
    Body,
    Calls,
    Part,
    Said,
    Scored,
    Span,
    Started,
    Tell,
    spans_of,
)
from strop.errors import HttpError, UsageError
from strop.types import Finish

FINISHES: Mapping[str, Finish] = {"stop": "stop", "length": "length", "abort": "aborted"}

PROBED_TOKENS = 5
"""So many of the likeliest tokens show whether log-probs know the temperature."""
FLAT = 1e-3
"""Nats: where the likeliest tokens are as close together, temperature cannot be seen in them."""


class SglangServer:
    """A `Server`.

    Log-probs are taken after the division by the temperature, and before top-k, top-p and min-p:
    those of truncated draws are `None`. A greedy token is the whole of its distribution, so its
    log-prob is 0, whatever the server says of it.
    """

    scores_together = True

    def __init__(self, url: str, *, seconds: float) -> None:
        self._calls = Calls(url, seconds=seconds)
        self.url = self._calls.url

    def about(self) -> About:
        """New weights from disk change the name under which SGLang serves, and leave that of its
        tokenizer, which is the model's own unless it was started with another."""
        listed, info = self._calls.models(), self._calls.look("model_info")
        return replace(listed, model=str(_field(info, "tokenizer_path", self.url)))

    def expect_usable(self, prompt_ids: Sequence[int]) -> None:
        started, info = self._calls.look("server_info"), self._calls.look("model_info")
        if not _field(started, "enable_deterministic_inference", self.url):
            raise UsageError(
                "the server reads no seeds, so that no run could be repeated",
                where=self.url, fix="start it with --enable-deterministic-inference",
            )  # fmt: skip
        if _field(info, "preferred_sampling_params", self.url):
            raise UsageError(
                "the server samples in a way of its own where a request is silent",
                where=self.url, fix="start it without --preferred-sampling-params",
            )  # fmt: skip
        self._expect_temperature(prompt_ids)

    def started(self) -> Started:
        """All replicas of `dp_size` would have to join a transfer, each with ranks of its own, so
        that those take none. A sleeping server keeps its weights only with a backup of them."""
        said = self._calls.look("server_info")
        ways = {"nccl", "ipc"} if _field(said, "device", self.url) == "cuda" else {"gloo"}
        return Started(
            quantization=_field(said, "quantization", self.url),
            workers=sglang_workers(said),
            transfers=frozenset(ways if _field(said, "dp_size", self.url) == 1 else ()),
            sleeps=bool(said.get("enable_memory_saver") and said.get("enable_weights_cpu_backup")),
        )

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
        if request.sampling.routes:
            raise UsageError(
                "the experts of SGLang's answers are not read", where=self.url,
                fix="drop rollout.routing_replay, or sample from vLLM",
            )  # fmt: skip
        body = body_of(request, adapter, stop_ids)
        if tell is None:
            said = self._calls.ask("generate", body, waiting)
        else:
            events = self._calls.hear("generate", body, waiting)
            said = whole_of(events, request.sampling, tell, self.url)
        return said_of(said, request.sampling, self.url)

    def score(self, ids: Sequence[int], adapter: str | None) -> Scored:
        return scored(self._calls.ask("generate", scoring_body(ids, adapter)), ids, self.url)

    def load_adapter(self, name: str, folder: Path) -> None:
        self._calls.tell("load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})

    def unload_adapter(self, name: str, *, leaving: bool = False) -> None:
        self._calls.tell("unload_lora_adapter", {"lora_name": name}, leaving=leaving)

    def reload(self, folder: Path) -> None:
        how = {"model_path": str(folder), "weight_version": folder.name, "flush_cache": True}
        self._calls.tell("update_weights_from_disk", how)

    def receive(self, weights: Mapping[str, torch.Tensor], name: str, way: str) -> None:
        SGLANG[way](self._calls, weights, name)

    def sleep(self) -> None:
        self._calls.tell("release_memory_occupation", {})

    def wake_up(self, *, leaving: bool = False) -> None:
        self._calls.tell("resume_memory_occupation", {}, leaving=leaving)

    def _expect_temperature(self, prompt_ids: Sequence[int]) -> None:
        """Half the temperature doubles the distance between two log-probs, if they are those of
        the distribution that is drawn from."""
        whole, half = (self._spread(prompt_ids, temperature) for temperature in (1.0, 0.5))
        if whole > FLAT and half < 1.5 * whole:
            raise UsageError(
                "the server gives log-probs before the division by the temperature",
                where=self.url, fix="start it without SGLANG_RETURN_ORIGINAL_LOGPROB",
            )  # fmt: skip

    def _spread(self, prompt_ids: Sequence[int], temperature: float) -> float:
        """How far the likeliest next tokens are apart, nats."""
        how = {"temperature": temperature, "max_new_tokens": 1, "sampling_seed": 0}
        body = _asked_of(None, prompt_ids) | {
            "sampling_params": how, "top_logprobs_num": PROBED_TOKENS,
        }  # fmt: skip
        said = self._calls.ask("generate", body)
        try:
            listed = [float(one[0]) for one in said["meta_info"]["output_top_logprobs"][0]]
            return max(listed) - min(listed)
        except (KeyError, IndexError, TypeError, ValueError):
            raise HttpError("the answer has no likeliest tokens", where=self.url) from None


def body_of(request: Request, adapter: str | None, stop_ids: Sequence[int]) -> Body:
    """A request as `/generate` reads it. Without a seed SGLang draws with 42 for all."""
    sampling = request.sampling
    return _asked_of(adapter, request.prompt.prompt_ids) | {
        "sampling_params": {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "min_p": sampling.min_p,
            "max_new_tokens": sampling.max_tokens,
            "sampling_seed": seed_of(request.key),
            "stop": list(sampling.stop),
            "stop_token_ids": list(stop_ids),
            "skip_special_tokens": sampling.skip_special_tokens,
        },
    }


def whole_of(events: Iterable[Any], sampling: Sampling, tell: Tell, url: str) -> Any:
    """The answer that a stream comes to, in the form of one that comes whole.

    Raises `HttpError` for events of another form, for tokens that are not those that were told, and
    for a stream that does not say its end.
    """
    told: list[Any] = []
    last: dict[str, Any] = {}
    for event in events:
        try:
            last = dict(event["meta_info"])
            new = _new_of(last, told)
            part = Part(
                tuple(int(one[1]) for one in new),
                _of_what_is_drawn(tuple(float(one[0]) for one in new), sampling),
            )
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            raise HttpError("a part of the answer has no tokens with log-probs, or not those that "
                            "were told before", where=url) from None  # fmt: skip
        told += new
        if part.ids:
            tell(part)
    if not last.get("finish_reason"):
        raise HttpError("the stream ended, and the answer did not", where=url)
    return {"meta_info": {**last, "output_token_logprobs": told}}


def _new_of(about: Mapping[str, Any], told: list[Any]) -> list[Any]:
    """What an event says that was not told before. Events repeat what earlier ones said, unless the
    server was started with `--incremental-streaming-output`; how many tokens there are in all says
    each of them. Raises `ValueError` for an event that does neither."""
    listed = list(about.get("output_token_logprobs") or ())
    count = int(about.get("output_token_logprobs_length") or 0)
    if len(told) + len(listed) == count:
        return listed
    if len(listed) == count and listed[: len(told)] == told:
        return listed[len(told) :]
    raise ValueError


def said_of(said: Any, sampling: Sampling, url: str) -> Said:
    """The answer. Raises `HttpError` for one of another form; a request that was aborted before
    its first token has none."""
    try:
        about = said["meta_info"]
        finish = FINISHES[about["finish_reason"]["type"]]
        listed = about["output_token_logprobs"] if finish != "aborted" else (
            about.get("output_token_logprobs") or ())  # fmt: skip
        ids = tuple(int(one[1]) for one in listed)
        logprobs = tuple(float(one[0]) for one in listed)
        spans = _spans_of(about, len(ids))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        raise HttpError("the answer has no tokens with log-probs", where=url) from None
    return Said(ids, _of_what_is_drawn(logprobs, sampling), finish, spans)


def scoring_body(ids: Sequence[int], adapter: str | None) -> Body:
    """Asks for the log-probs of given tokens, and for one further token, which nobody reads."""
    how = {"temperature": 1.0, "max_new_tokens": 1}
    return _asked_of(adapter, ids) | {"sampling_params": how, "logprob_start_len": 0}


def scored(said: Any, ids: Sequence[int], url: str) -> Scored:
    """The log-prob of every given token but the first. Raises `HttpError` for an answer of another
    form, or of other tokens."""
    try:
        about = said["meta_info"]
        listed = about["input_token_logprobs"][1:]
        found = Scored(tuple(float(one[0]) for one in listed), _spans_of(about, 1))
        same = [int(one[1]) for one in listed] == list(ids[1:])
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        raise HttpError("the answer has no log-probs of the given tokens", where=url) from None
    if not same:
        raise HttpError("the answer has log-probs of other tokens than were given", where=url)
    return found


def _spans_of(about: Mapping[str, Any], count: int) -> tuple[Span, ...]:
    """An answer names its weights; one that several versions sampled names each of its spans."""
    return spans_of(about.get("weight_versions") or ()) or (
        Span(str(about["weight_version"]), 0, count),
    )


def _asked_of(adapter: str | None, ids: Sequence[int]) -> Body:
    named = {} if adapter is None else {"lora_path": adapter}
    return {**named, "input_ids": list(ids), "return_logprob": True}


def _of_what_is_drawn(logprobs: tuple[float, ...], sampling: Sampling) -> tuple[float, ...] | None:
    """The log-probs under the distribution that was drawn from; `None` where they are unknown."""
    if sampling.temperature == 0:
        return (0.0,) * len(logprobs)
    if sampling.top_k or sampling.min_p or sampling.top_p < 1:
        return None
    return logprobs


def _field(said: Any, name: str, url: str) -> Any:
    """One field of what a server says of itself; raises `HttpError` where it says nothing of it."""
    if not isinstance(said, dict) or name not in said:
        raise HttpError(f"it does not say its {name}", where=url, status=200)
    return said[name]
