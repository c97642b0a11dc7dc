"""How long serving engines take for the answers of a step, from sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from strop.train.preflight.cost.duration import READ, USED
from strop.train.preflight.cost.hardware import GIB, Hardware
from strop.train.preflight.cost.period import batch_seconds
from strop.train.preflight.cost.shape import Shape

TENSOR = {1: 1.0, 2: 0.95, 4: 0.88, 8: 0.78}
"""GPUs of one engine (a node at most), and the share of their speed that their all-reduces leave:
strop's own assumption for fast links inside a node."""
CAPTURED = 3e-5
"""Seconds that a layer takes at least in a round of a serving engine, whose kernels are captured as
one graph: strop's own assumption."""
SERVED = 0.9
"""Of a device's memory that an engine takes for weights and keys, as vLLM does by default."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What is sampled for a step: `Answers(count=512, mean=1024.0, longest=4096.0, prompt=200.0,
    prompts=12_800)`. Lengths are tokens, `prompt` that of the mean prompt, `prompts` of all that
    are read (a group reads its prompt once)."""

    count: int
    mean: float
    longest: float
    prompt: float
    prompts: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """Engines of one kind of GPU, whose numbers have `size` bytes; they sample `answers` a step."""

    shape: Shape
    device: Hardware
    size: int
    answers: Answers

    @property
    def weights(self) -> int:
        """Bytes of a model's weights."""
        return self.size * self.shape.parameters

    def tensors(self) -> list[int]:
        """GPUs that one engine may have: as many as hold the model and an answer, in a node."""
        return [tensor for tensor in TENSOR if self.fit(tensor) >= 1]

    def fit(self, tensor: int) -> int:
        """Answers whose keys fit into an engine of so many GPUs at once."""
        room = SERVED * tensor * self.device.memory_gib * GIB - self.weights
        return max(0, int(room // (self.shape.slot_bytes(self.size) * self._context())))

    def _context(self) -> float:
        """Tokens of a row in the middle of the longest answer."""
        return self.answers.prompt + self.answers.longest / 2

    def round(self, tensor: int, active: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Seconds in which every row at work gets a token: weights and keys are read, and computed
        with, whichever takes longer. Rows that do not fit take turns."""
        fit = self.fit(tensor)
        at_once = np.minimum(active, fit)
        keys = at_once * self.shape.slot_bytes(self.size) * self._context()
        speed = tensor * TENSOR[tensor] * self.device.gb_per_second * 1e9 * READ["cuda"].likely
        computing = 2 * self.shape.parameters * at_once / self._computes(tensor)
        busy = np.maximum((self.weights + keys) / speed, computing) + CAPTURED * self.shape.layers
        return np.maximum(1.0, active / fit) * busy

    def _computes(self, tensor: int) -> float:
        """Operations a second of an engine."""
        return tensor * TENSOR[tensor] * self.device.tflops * 1e12 * USED["cuda"].likely

    def batch(self, gpus: int, tensor: int, overlap: float) -> float:
        """Seconds from one step's answers to the next with `overlap` steps on their way."""
        engines = gpus // tensor
        rows = math.ceil(self.answers.count / engines)
        once = partial(self.round, tensor)
        answering = batch_seconds(rows, self.answers.mean, self.answers.longest, once, overlap)
        prompts = 2 * self.shape.parameters * self.answers.prompts
        return answering + prompts / (engines * self._computes(tensor))
