"""What is written of an answer that was given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from strop.files import digest64
from strop.serve.answering import Ended, Timed, usage
from strop.serve.exchange import Exchange
from strop.serve.protocol.speaking import called
from strop.serve.service import Service


def keep(service: Service, asked: Exchange, ended: Sequence[Ended], timed: Timed) -> None:
    """Count an answer, log it if its conversation is drawn, let the shadow follow."""
    metrics = service.metrics
    for one in ended:
        metrics.answers.labels(asked.model, asked.version.label, one.finish).inc()
    used = usage(asked, ended)
    metrics.tokens.labels("prompt").inc(used["prompt_tokens"])
    metrics.tokens.labels("completion").inc(used["completion_tokens"])
    if timed.sampled is not None:
        metrics.tokens.labels("hidden").inc(timed.sampled - used["completion_tokens"])
    if timed.first is not None:
        metrics.first.observe(timed.first)
    metrics.total.observe(timed.total)
    traffic = service.traffic
    drawn = digest64(f"traffic/{asked.session}") / 2**64
    if traffic is not None and drawn < traffic.recipe.share:
        service.keep(row_of(asked, ended, timed, used))
    if service.shadow is not None and asked.model == service.shadowed:
        service.shadow.follow(asked, ended[0].completion.said)


def row_of(
    asked: Exchange, ended: Sequence[Ended], timed: Timed, used: dict[str, Any]
) -> dict[str, Any]:
    """A row of the log (docs/serve.md), as `strop data build` reads it."""
    version = asked.version
    answers = [answer_of(one) for one in ended]
    plain = isinstance(asked.prompt, str)
    row: dict[str, Any] = {
        "id": asked.id, "model": asked.model, "version": version.label,
        "weights": version.place.weights, "entry": version.place.entry,
        "caller": asked.caller.name, "session": asked.session,
        "messages": [{"role": "user", "content": asked.prompt}] if plain else asked.prompt,
        "plain": plain,
    }  # fmt: skip
    row |= {"answer": answers[0]} if len(answers) == 1 else {"answers": answers}
    if asked.tools:
        row["tools"] = list(asked.tools)
    if asked.arm is not None:
        row |= {"trial": asked.arm.trial, "arm": asked.arm.side}
    if asked.metadata:
        row["metadata"] = dict(asked.metadata)
    sampling = {n: v for n, v in asdict(asked.sampling).items() if v or n == "temperature"}
    return row | {
        "finish": [one.finish for one in ended], "usage": used,
        "sampling": {**sampling, "seed": asked.seed, "n": asked.n},
        "sampled_tokens": timed.sampled,
        "latency": {"first": timed.first, "total": timed.total},
        "prompt_token_ids": list(asked.prompted.prompt_ids),
        "token_ids": [list(one.completion.ids) for one in ended],
        "logprobs": [list(one.completion.logprobs or ()) for one in ended],
    }  # fmt: skip


def answer_of(ended: Ended) -> Any:
    """An answer as text, or as a message where it has more than text."""
    said = ended.written
    if not said.calls and said.reasoning is None:
        return said.content
    message: dict[str, Any] = {"role": "assistant", "content": said.content or None}
    if said.reasoning is not None:
        message["reasoning_content"] = said.reasoning
    if said.calls:
        calls = [called(one, n, f"call{n:06}") for n, one in enumerate(said.calls)]
        message["tool_calls"] = [{k: v for k, v in c.items() if k != "index"} for c in calls]
    return [message]
