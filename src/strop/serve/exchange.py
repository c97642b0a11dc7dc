"""One request that is being answered: what was asked, of which weights, and how to draw."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Request, Sampling, requests_of
from strop.engines.grammar import Grammar
from strop.files import SHORT, sha256_hex
from strop.recipe.serve import LimitsRecipe
from strop.serve.access import Caller
from strop.serve.errors import RefusedError
from strop.serve.models.version import Version
from strop.serve.protocol.bodies import Drawing, ResponseFormat
from strop.text.chat.template import Tools
from strop.types import Text


@dataclass(frozen=True, slots=True)
class Arm:
    """Which side of a canary's trial a request is on: `Arm("c-3f2a9c1b", "canary")`."""

    trial: str
    side: str


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """What all prompts of one request have in common."""

    caller: Caller
    session: str
    model: str
    version: Version
    arm: Arm | None
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Exchange:
    """`seed` is the request's own, or one that was drawn for it and is told; the draw of choice i
    is that of `DrawKey(seed, "served", prompt=<ids>, index=i)`. `began` counts seconds of a clock
    that only goes forward."""

    id: str
    caller: Caller
    session: str
    model: str
    version: Version
    arm: Arm | None
    prompt: Text
    tools: Tools
    prompted: PromptedTask
    sampling: Sampling
    n: int
    seed: int
    metadata: Mapping[str, str]
    created: int = field(default_factory=lambda: int(time.time()))
    began: float = field(default_factory=time.perf_counter)

    def requests(self) -> list[Request]:
        """One for each choice."""
        return requests_of([self.prompted], self.sampling, DrawKey(self.seed, "served"), self.n)


def new_id(kind: str) -> str:
    """An id that nobody can guess: `"chatcmpl-9f8e7d..."`."""
    return f"{kind}-{secrets.token_hex(16)}"


def session_of(caller: Caller, user: str | None, prompt: Text | tuple[int, ...]) -> str:
    """Who asks, or which conversation it is where no user is named: its beginning up to the first
    word of the user, which later turns repeat. A hash, so that no name is kept."""
    if user is not None:
        return sha256_hex(f"{caller.name}/user/{user}", SHORT)
    if isinstance(prompt, str | tuple):
        return sha256_hex(f"{caller.name}/prompt/{prompt}", SHORT)
    first = next((n for n, turn in enumerate(prompt) if turn.get("role") == "user"), len(prompt))
    return sha256_hex(f"{caller.name}/begins/{prompt[: first + 1]!r}", SHORT)


def seed_of(body: Drawing) -> int:
    return body.seed if body.seed is not None else secrets.randbits(48)


def sampling_of(
    body: Drawing,
    longest: int | None,
    version: Version,
    prompt: int,
    limits: LimitsRecipe,
    top: int,
) -> Sampling:
    """How to draw what was asked for, after `prompt` tokens of a prompt; `top` likeliest tokens are
    told at each place. Raises `RefusedError` (400) for more than the model or the server allows."""
    if longest is not None and longest > limits.tokens:
        raise RefusedError(400, f"{longest} tokens are asked for: at most {limits.tokens} here",
                           param="max_tokens")  # fmt: skip
    wanted = longest or limits.tokens
    if version.context is not None:
        left = version.context - prompt
        if left < (longest or 1):
            raise RefusedError(
                400,
                f"the prompt has {prompt} tokens and {longest or 1} are to follow: the model reads "
                f"{version.context}",
                param="messages",
                code="context_length_exceeded",
            )
        wanted = min(wanted, left)
    return Sampling(
        temperature=body.temperature, top_p=body.top_p, top_k=max(body.top_k, 0), min_p=body.min_p,
        max_tokens=wanted, stop=tuple(body.stop), include_stop_str_in_output=False,
        frequency_penalty=body.frequency_penalty, presence_penalty=body.presence_penalty,
        repetition_penalty=body.repetition_penalty,
        logit_bias=tuple((int(id_), bias) for id_, bias in body.logit_bias.items()),
        top_logprobs=top, grammar=grammar_of(body.response_format),
    )  # fmt: skip


def grammar_of(wanted: ResponseFormat | None) -> Grammar | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.json_schema is None:
        return Grammar("json_object")
    return Grammar("json_schema", json.dumps(wanted.json_schema.schema_))
