"""Draw keys: they fix the random numbers that a completion is sampled with.

A draw is a pure function of its key; it does not depend on the batch, the engine's order of work or
the number of processes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Stream = Literal[
    "training",
    "selfcheck",
    "held_out",
    "eval",
    "decode",
    "synthetic",
    "data",
    "judge",
    "served",
    "curriculum",
    "distil",
]
"""The purpose of a draw: training rollouts, the check before step 1, held-out tasks during
training, the tasks of an eval, a study of decoding, generated data, answers that become data,
verdicts, requests to a server of ours, which tasks are drawn, whose answer a student learns from.
Streams of one seed are independent."""

Uniforms = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class DrawKey:
    """`DrawKey(seed=0, stream="training", step=3, round=0, prompt="1,4", index=2)` draws the third
    completion of a prompt in step 3.

    `round` counts within a step: dynamic sampling's further rounds, a study's revisions. `prompt`
    names the prompt: its ids, its origin where a server writes the ids, or the hash of its text.
    """

    seed: int
    stream: Stream
    step: int = 0
    round: int = 0
    prompt: str = ""
    index: int = 0


def uniforms(key: DrawKey, count: int) -> Uniforms:
    """The first `count` numbers in [0, 1) of a key, float64; a larger `count` begins with the same
    numbers."""
    number = int.from_bytes(_digest(key)[:16], "little")
    return np.random.Generator(np.random.Philox(key=number)).random(count)


def seed_of(key: DrawKey) -> int:
    """One number for a server that takes a seed for each request, below 2^63: keys that differ in
    anything have seeds that nothing else has in common."""
    return int.from_bytes(_digest(key)[:8], "little") >> 1


def written(key: DrawKey) -> str:
    """The key as text, for what draws by other means: equal keys alone have the same."""
    return f"{key.seed}/{key.stream}/{key.step}/{key.round}/{key.index}/{key.prompt}"


def _digest(key: DrawKey) -> bytes:
    return hashlib.sha256(written(key).encode()).digest()
