"""Requests that come while others decode, and what their answers have to be."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from strop.engines.draws import DrawKey
from strop.engines.engine import Request, Sampling, requests_of
from strop.engines.local.continuous import Continuous
from strop.engines.local.engine import LocalEngine
from strop.types import Completion
from tests.support.families import model_of
from tests.support.rollouts import prompts
from tests.support.sampling import engine_of, prompted

STOP = [2, 5, 7]
SAMPLINGS = (
    Sampling(max_tokens=24),
    Sampling(temperature=0.6, top_k=6, max_tokens=9),
    Sampling(temperature=0, max_tokens=15),
    Sampling(temperature=1.3, top_p=0.9, max_tokens=30, entropies=True, stop=("11",)),
)
CLOSE = 2e-5
"""Nats by which log-probs may differ: rows of a matrix product are rounded by its shape."""


def engine_named(name: str, **options: Any) -> LocalEngine:
    model = model_of(name)
    model.generation_config.eos_token_id = STOP
    return engine_of(model, **options)


def mixed(count: int = 10, longest: int = 80) -> list[Request]:
    """Requests of short and long prompts, several for each, with samplings in turn."""
    asked = []
    for n, prompt in enumerate(prompted(prompts(count=count, longest=longest))):
        how = SAMPLINGS[n % len(SAMPLINGS)]
        asked += requests_of([prompt], how, DrawKey(n, "eval"), 1 + n % 3)
    return asked


def alone(engine: LocalEngine, requests: list[Request]) -> list[Completion]:
    """Each request by itself, in a decoder of its own."""
    return [next(iter(engine.generate([one])))[1] for one in requests]


def expect_same(found: Completion, wanted: Completion) -> None:
    assert replace(found, logprobs=None, entropies=None) == replace(
        wanted, logprobs=None, entropies=None
    )
    for mine, other in ((found.logprobs, wanted.logprobs), (found.entropies, wanted.entropies)):
        assert (mine is None) == (other is None)
        assert torch.tensor(mine or ()).sub(torch.tensor(other or ())).abs().le(CLOSE).all()


def arrivals(
    decoding: Continuous[int], requests: list[Request], chance: random.Random
) -> Iterator[tuple[int, Completion]]:
    """Some requests come, some tokens are decoded, and so on, in a random order."""
    coming = list(enumerate(requests))
    chance.shuffle(coming)
    while coming or decoding.busy:
        count = chance.choice((0, 0, 1, 1, 2, 5))
        decoding.add(coming[:count])
        del coming[:count]
        yield from decoding.step(chance.choice((1, 3)))
