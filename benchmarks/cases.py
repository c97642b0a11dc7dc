"""What is measured: shapes of models, cases, and the sides that take part.

Standard library only: the process that coordinates must stay small, or it would disturb both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

TRL_VERSION = "1.16.0"
SMALL_VOCABULARY, LARGE_VOCABULARY, REAL_VOCABULARY = 4096, 151_936, 49_152

Kind = Literal["dpo", "sft", "kto", "grpo", "sampler"]
Data = Literal["random", "algebra", "real"]


@dataclass(frozen=True, slots=True)
class Shape:
    """A Qwen3 by its dimensions; `hidden` 0 stands for a model that is there already: the demo's
    after its first stage, or those of `make real`."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    tied: bool = True


SHAPES = {
    "demo": Shape(0, 0, 0, 0, 0, 0),
    "smollm2-135m": Shape(0, 0, 0, 0, 0, 0),
    "1m": Shape(128, 5, 4, 2, 32, 384),
    "8m": Shape(320, 6, 4, 2, 64, 1152),
    "60m": Shape(768, 9, 12, 4, 64, 2176),
    "qwen3-1.7b": Shape(2048, 28, 16, 8, 128, 6144),
    "qwen3-8b": Shape(4096, 36, 32, 8, 128, 12288, tied=False),
}
"""Named by the parameters between embeddings and head; the last two have Qwen3's own sizes."""

REAL = "smollm2-135m"

ON_CPU = ("1m", "8m", "60m")


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of work: ranges of prompt and answer lengths in tokens, records (or prompts) a step.

    `target` is the ratio to reach against TRL's best settings (None: shown only).
    """

    name: str
    kind: Kind
    prompt: tuple[int, int]
    answer: tuple[int, int]
    batch: int
    group: int = 1
    target: float | None = None
    data: Data = "random"


CASES = {
    case.name: case
    for case in (
        Case("dpo", "dpo", (100, 300), (30, 200), 16, target=2.0),
        Case("dpo-short", "dpo", (20, 60), (20, 80), 32, target=1.9),
        Case("dpo-long", "dpo", (800, 1200), (50, 150), 8, target=2.2),
        Case("sft", "sft", (20, 200), (20, 400), 32, target=1.3),
        Case("kto", "kto", (100, 300), (30, 200), 16),
        Case("grpo-algebra", "grpo", (1, 1), (1, 48), 16, 8, 2.5, "algebra"),
        Case("grpo-long", "grpo", (300, 300), (1, 200), 16, 8, 3.5),
        Case("sampler-algebra", "sampler", (1, 1), (1, 48), 16, 8, None, "algebra"),
        Case("sampler-short", "sampler", (20, 60), (1, 200), 128, 1, 2.0),
        Case("sampler-long", "sampler", (300, 300), (1, 200), 16, 8, 3.0),
        Case("real-dpo", "dpo", (1, 1), (1, 96), 8, target=2.0, data="real"),
        Case("real-grpo", "grpo", (1, 1), (1, 24), 8, 8, 2.5, "real"),
        Case("real-sampler", "sampler", (1, 1), (1, 96), 32, 1, 2.0, "real"),
        Case("gpu-dpo", "dpo", (500, 4000), (100, 1000), 8, target=1.5),
        Case("gpu-grpo", "grpo", (1000, 1000), (1, 256), 8, 8, 1.5),
        Case("gpu-sampler", "sampler", (1000, 1000), (1, 400), 16, 8, 3.0),
        Case("gpu-sft", "sft", (200, 1000), (500, 3000), 16),
    )
}


@dataclass(frozen=True, slots=True)
class Run:
    """A case on a model: everything a side needs to know. Steps include those not counted;
    `forward_tokens` is what the recipe says of strop's forwards (`None`: nothing)."""

    case: Case
    shape: str
    vocabulary: int
    steps: int
    bfloat16: bool = False
    lora: bool = False
    forward_tokens: int | None = None

    @property
    def name(self) -> str:
        vocabulary = "" if self.shape == "demo" else f"-{round(self.vocabulary / 1000)}k"
        return f"{self.case.name}-{self.shape}{vocabulary}{'-lora' if self.lora else ''}"


@dataclass(frozen=True, slots=True)
class Entrant:
    """A side with its settings; `accumulation` cuts TRL's batch into so many forwards.

    `allocator` gives TRL the C allocator's setting that strop makes for itself. With `profiled`
    strop's last step is traced, and not counted. `options` are keys of strop's recipe:
    `("run.compile=true",)`.
    """

    name: str
    system: Literal["strop", "trl"]
    cached_reference: bool = True
    accumulation: int = 1
    rebalanced: bool = False
    continuous: bool = False
    allocator: bool = False
    profiled: bool = False
    options: tuple[str, ...] = ()


STROP = Entrant("strop", "strop")
DEFAULTS = Entrant("defaults", "trl", cached_reference=False)


def rivals(case: Case) -> list[Entrant]:
    """TRL as it comes, and every way to set it up for this case that might be its fastest.

    On a real model it does not run as it comes: all sides are in memory at once, and weights,
    moments and a second copy for the reference of a fourth one do not fit 24 GB.
    """
    plain = Entrant("plain", "trl", allocator=True)
    if case.data == "real":
        return [plain, replace(plain, name="4 forwards", accumulation=4)]
    if case.kind in ("sampler", "grpo"):
        ways = [plain, replace(plain, name="continuous", continuous=True)]
        if case.kind == "grpo":
            ways.append(replace(plain, name="4 forwards", accumulation=4))
        return [DEFAULTS, *ways]
    ways = [plain, replace(plain, name="4 forwards", accumulation=4)]
    if case.kind == "sft":
        ways.append(replace(ways[-1], name="by length", rebalanced=True))
    return [DEFAULTS, *ways]


def model_scale(case: Case, shape: str) -> Case:
    """Fewer records a step for larger models, so that a step stays within seconds."""
    share = {"8m": 2, "60m": 4}.get(shape, 1)
    return replace(case, batch=max(2, case.batch // share))
