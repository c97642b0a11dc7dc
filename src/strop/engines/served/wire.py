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
from strop.types import Completion, Finish, Routes, VersionSpan

Body = dict[str, Any]

Labels = Mapping[str | None, int]
"""What a server calls its weights, and which versions they are."""

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
    said: Any, request: Request, labels: Labels, tokenizer: Tokenizer, url: str
) -> Completion:
    """The answer with its tokens, every span stamped with the version that sampled it. Raises
    `HttpError` for one of another form, and `OtherWeightsError` for one of unknown weights."""
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
    made = Completion.one_turn(ids, text, logprobs, finish)
    spans = spans_of(said, labels, url)
    made = replace(made, opened=request.prompt.opened, versions=spans)
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


def weights_of(said: Any, url: str) -> str | None:
    """The weights that an answer says it comes from; `None` where it says nothing. Raises
    `HttpError` for an answer of another form."""
    try:
        spans = said["choices"][0].get("weight_versions") or []
        found = sorted({str(span["version"]) for span in spans})
    except (AttributeError, KeyError, IndexError, TypeError):
        raise HttpError("the answer does not say its weights as it should", where=url) from None
    return " and ".join(found) or None


def spans_of(said: Any, labels: Labels, url: str) -> tuple[VersionSpan, ...]:
    """Which version sampled which tokens of an answer; one without a token need not say it.

    Raises `OtherWeightsError` for weights without one of these labels.
    """
    found = weights_of(said, url)
    try:
        choice = said["choices"][0]
        count = len(choice.get("token_ids") or ())
        spans = choice.get("weight_versions") or [{"version": None, "start": 0, "end": count}]
        read = [(span["version"], int(span["start"]), int(span["end"])) for span in spans]
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        raise HttpError("the answer does not say its weights as it should", where=url) from None
    if found is None and count == 0:
        return ()
    made = []
    for label, start, stop in read:
        known = None if label is None else str(label)
        if known not in labels:
            raise OtherWeightsError(
                f"it samples from other weights ({found}) than were published "
                f"({' or '.join(str(one) for one in labels)})",
                where=url,
            )
        made.append(VersionSpan(start, stop, labels[known]))
    if count and [(s.start, s.stop) for s in made] != _contiguous(made, count):
        raise HttpError("the answer's weights do not cover its tokens", where=url)
    return tuple(made) if count else ()


def _contiguous(spans: Sequence[VersionSpan], count: int) -> list[tuple[int, int]]:
    """Where these spans begin and end if each begins where the one before ends."""
    stops = [span.stop for span in spans]
    return list(zip([0, *stops[:-1]], [*stops[:-1], count], strict=True))


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
