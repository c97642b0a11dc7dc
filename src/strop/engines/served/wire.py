"""What goes over the wire: requests as vLLM's `/inference/v1/generate` reads them, its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from strop.engines.draws import seed_of
from strop.engines.endings import stopped, text_of
from strop.engines.engine import Request
from strop.errors import HttpError
from strop.text.encode import Tokenizer
from strop.types import Completion, Finish

Body = dict[str, Any]

FINISHES: Mapping[str | None, Finish] = {
    "stop": "stop", "length": "length", "abort": "aborted", "error": "error",
}  # fmt: skip


class OtherWeightsError(HttpError):
    """A server is there, and does not hold the weights that the run gave it."""

    def __init__(self, problem: str, *, where: str) -> None:
        super().__init__(f"{problem}: it was restarted, or serves another run", where=where)


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
    return replace(made, opened=request.prompt.opened)


def weights_of(said: Any, url: str) -> str | None:
    """The weights that an answer says it comes from; `None` where it says nothing. Raises
    `HttpError` for an answer of another form."""
    try:
        spans = said["choices"][0].get("weight_versions") or []
        found = sorted({str(span["version"]) for span in spans})
    except (AttributeError, KeyError, IndexError, TypeError):
        raise HttpError("the answer does not say its weights as it should", where=url) from None
    return " and ".join(found) or None


def expect_weights(said: Any, label: str | None, url: str) -> None:
    """Raise `OtherWeightsError` unless an answer says that it comes from these weights; an answer
    without a token need not say it."""
    found = weights_of(said, url)
    if found != label and (found is not None or said["choices"][0].get("token_ids")):
        raise OtherWeightsError(
            f"it samples from other weights ({found}) than were published ({label})", where=url
        )


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
