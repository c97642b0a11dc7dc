"""What goes over the wire: requests as vLLM's `/inference/v1/generate` reads them, its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from strop.engines.draws import seed_of
from strop.engines.endings import stopped, text_of
from strop.engines.engine import Request
from strop.engines.routes import routes_of_text
from strop.errors import HttpError
from strop.text.encode import Tokenizer
from strop.types import Completion, Finish, Routes

Body = dict[str, Any]

FINISHES: Mapping[str | None, Finish] = {
    "stop": "stop", "length": "length", "abort": "aborted", "error": "error",
}  # fmt: skip


def body_of(request: Request, model: str, stop_ids: Sequence[int]) -> Body:
    """One sample, with a seed of its own: the children of vLLM's `n` have seeds that follow each
    other, so that those of two prompts would share draws."""
    sampling = request.sampling
    return {
        "model": model,
        "token_ids": list(request.prompt.prompt_ids),
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


def completion_of(
    said: Any, request: Request, version: int, tokenizer: Tokenizer, url: str
) -> Completion:
    """The answer with its tokens. Raises `HttpError` for one of another form."""
    try:
        choice = said["choices"][0]
        ids = [int(i) for i in choice["token_ids"]]
        logprobs = [float(one["logprob"]) for one in choice["logprobs"]["content"]]
        finish = FINISHES[choice["finish_reason"]]
    except (KeyError, IndexError, TypeError, ValueError):
        raise HttpError("the answer has no tokens with log-probs", where=url) from None
    if len(ids) != len(logprobs):
        raise HttpError(f"{len(ids)} tokens came with {len(logprobs)} log-probs", where=url)
    text = stopped(text_of(tokenizer, ids, request.sampling), request.sampling)
    made = Completion.one_turn(ids, text, logprobs, finish, version)
    made = replace(made, opened=request.prompt.opened)
    if not request.sampling.routes or not ids:
        return made
    prompt, answer = routes_of_answer(said, request, len(ids), url)
    return replace(made, prompt_routes=prompt, routes=answer)


def routes_of_answer(said: Any, request: Request, length: int, url: str) -> tuple[Routes, Routes]:
    """The routes of a prompt and of an answer of so many tokens. Raises `HttpError` for an answer
    without them."""
    given = said["choices"][0].get("routed_experts")
    if given is None:
        raise HttpError("the answer does not say which experts its tokens went to", where=url)
    return routes_of_text(given, len(request.prompt.prompt_ids), length, url)


def expect_weights_of(said: Any, label: str | None, url: str) -> None:
    """Raise `HttpError` for an answer that says it was sampled from other weights: the server was
    restarted since they were published, or another run gave it its own."""
    spans = said["choices"][0].get("weight_versions") or []
    found = {str(span["version"]) for span in spans} - {label}
    if label is not None and found:
        raise HttpError(
            f"it samples from other weights ({min(found)}) than were published ({label}): it was "
            "restarted, or serves another run", where=url,
        )  # fmt: skip


def scoring_body(ids: Sequence[int], model: str) -> Body:
    """Asks for the log-probs of given tokens, and for one further token, which nobody reads."""
    return {
        "model": model,
        "token_ids": list(ids),
        "sampling_params": {"temperature": 1.0, "max_tokens": 1, "prompt_logprobs": 0},
    }


def scored(said: Any, ids: Sequence[int], url: str) -> list[float]:
    """The log-prob of every given token but the first, nats. Raises `HttpError` for an answer of
    another form."""
    try:
        listed = said["prompt_logprobs"]
        return [float(listed[place][str(ids[place])]["logprob"]) for place in range(1, len(ids))]
    except (KeyError, IndexError, TypeError, ValueError):
        raise HttpError("the answer has no log-probs of the given tokens", where=url) from None
