"""strop and TRL at Qwen3's own sizes, for a CUDA device that is there for minutes: `make gpu`.

Every side of a case runs alone on the device, in a process of its own, with a time limit. Sides
come in the order of their worth, each step is written as soon as it is done, and a later call goes
on with what is missing on the same card.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import CASES, LARGE_VOCABULARY, TRL_VERSION, Case, Entrant, Run
from benchmarks.duel import Absent, Fighter, entered
from benchmarks.make import make
from benchmarks.ours import PROFILE
from benchmarks.sides import Batch, Step
from benchmarks.worker import Order, Told
from strop.errors import UsageError
from strop.train.preflight.cost.hardware import hardware

Results = dict[str, Any]

WARM_UP = 2
"""Steps of each side that are not counted: allocators grow and kernels are compiled in them."""

RECORDS_FOR = 8
"""Steps for which every case has records, so that all its sides read the same ones."""

LEAST = 0.6
"""With less than this share of the seconds that a side may take it is not begun."""

OUT_OF_TIME = "the time of this call ended"
NO_TRL = f"TRL {TRL_VERSION} is not installed"

STROP = Entrant("strop", "strop")
TRACED = replace(STROP, profiled=True)
PLAIN = Entrant("plain", "trl", allocator=True)
COMPILED = replace(STROP, name="strop compiled", options=("run.compile=true",))
FUSED = replace(STROP, name="strop with Liger's kernels", options=("model.kernels=liger",))
SMALL_MOMENTS = replace(
    STROP, name="strop with 8-bit AdamW", options=("optim.optimizer=adamw_8bit",)
)
EIGHT, FOUR, SIXTEEN = (
    replace(PLAIN, name=f"{forwards} forwards", accumulation=forwards) for forwards in (8, 4, 16)
)


@dataclass(frozen=True, slots=True)
class Part:
    """One side of a run, and the seconds it may take from its start to its last step."""

    run: Run
    entrant: Entrant
    seconds: float


def parts(*, tiny: bool) -> list[Part]:
    """All sides in the order of their worth. In GRPO TRL comes first, for strop learns TRL's first
    samples to show that both compute the same step. `tiny` is the same on a processor."""
    small = partial(_run, tiny, "qwen3-1.7b")
    dpo, grpo, sampler = small("gpu-dpo", 5), small("gpu-grpo", 4), small("gpu-sampler", 3)
    large = replace(_run(tiny, "qwen3-8b", "gpu-sft", 4), lora=True, forward_tokens=8192)
    return [
        Part(with_a_trace(dpo), TRACED, 90),
        Part(dpo, EIGHT, 75),
        Part(grpo, EIGHT, 110),
        Part(with_a_trace(grpo), TRACED, 90),
        Part(sampler, STROP, 75),
        Part(sampler, PLAIN, 90),
        Part(large, STROP, 150),
        Part(dpo, FOUR, 75),
        Part(grpo, SIXTEEN, 110),
        Part(sampler, replace(PLAIN, name="continuous", continuous=True), 90),
        Part(dpo, PLAIN, 75),
        Part(dpo, COMPILED, 120),
        Part(dpo, FUSED, 90),
        Part(dpo, SMALL_MOMENTS, 90),
    ]


def with_a_trace(run: Run) -> Run:
    """One step more, which is traced."""
    return replace(run, steps=run.steps + 1)


TINY = {
    "gpu-dpo": Case("gpu-dpo", "dpo", (8, 20), (4, 12), 8, target=1.5),
    "gpu-grpo": Case("gpu-grpo", "grpo", (20, 20), (1, 12), 8, 8, 1.5),
    "gpu-sampler": Case("gpu-sampler", "sampler", (20, 20), (1, 12), 4, 8, 3.0),
    "gpu-sft": Case("gpu-sft", "sft", (4, 12), (8, 20), 8),
}


def _run(tiny: bool, shape: str, name: str, steps: int) -> Run:
    if tiny:
        return Run(TINY[name], "1m", 300, steps)
    return Run(CASES[name], shape, LARGE_VOCABULARY, steps, bfloat16=True)


def card() -> str:
    """The device that all sides run on."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else hardware().name


def peak_rate() -> float | None:
    """Products in bfloat16 a second that the maker promises (on a processor: measured, in
    float32); `None` for a card that strop's table of hardware does not have."""
    try:
        return hardware().tflops * 1e12
    except UsageError:
        return None


@dataclass(slots=True)
class Record:
    """What was measured so far on this card, on disk after every step."""

    path: Path
    found: Results

    @classmethod
    def of(cls, path: Path) -> Record:
        """Go on with the file, or begin it again where it is of another card."""
        known = json.loads(path.read_text()) if path.exists() else {}
        if known.get("card") != card():
            known = {
                "card": card(),
                "torch": torch.__version__,
                "peak_rate": peak_rate(),
                "runs": {},
            }
        return cls(path, known)

    def side(self, part: Part) -> Results:
        run = self.found["runs"].setdefault(
            part.run.name, {"goal": part.run.case.target, "sides": {}}
        )
        side: Results = run["sides"].setdefault(part.entrant.name, {})
        return side

    def open(self, part: Part) -> bool:
        """Whether a side has still to run: not if it is done or fell, but if time ended."""
        side = self.side(part)
        return not side.get("done") and side.get("absent", OUT_OF_TIME) in (OUT_OF_TIME, NO_TRL)

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        written = self.path.with_suffix(".part")
        written.write_text(json.dumps(self.found, indent=1))
        written.replace(self.path)


def measure(wanted: list[Part], work: Path, record: Record, seconds: float) -> Iterator[str]:
    """Run the sides that are still open, for at most so many seconds in all; a line for each."""
    until = time.monotonic() + seconds
    record.write()
    for number, part in enumerate(wanted, start=1):
        label = f"[{number}/{len(wanted)}] {part.run.name}, {part.entrant.name}"
        if not record.open(part):
            yield f"{label}: measured before"
            continue
        left = until - time.monotonic()
        if left < LEAST * part.seconds:
            yield f"{label}: {OUT_OF_TIME}; the same command goes on here"
            continue
        side = record.side(part)
        side.clear()
        try:
            alone(replace(part, seconds=min(part.seconds, left)), work, side, record)
        except Absent as reason:
            ended = left < part.seconds and "within" in str(reason)
            side["absent"] = OUT_OF_TIME if ended else str(reason)
        record.write()
        yield f"{label}: {said(side)}"


def alone(part: Part, work: Path, side: Results, record: Record) -> None:
    """One side's steps; raises `Absent` where it fails or takes longer than it may."""
    _expect_trl(part)
    until = time.monotonic() + part.seconds
    folder = (work / part.run.name).resolve()
    make(replace(part.run, steps=RECORDS_FOR), folder)
    fighter = entered(part.run, folder, part.entrant)

    def left() -> float:
        return max(0.0, until - time.monotonic())

    busy = True
    try:
        fighter.ready(left())
        _check(fighter, part, folder, side, left())
        for _ in range(part.run.steps - part.entrant.profiled):
            _note(fighter.ask(Order("step"), left()), folder, side)
            record.write()
        side["done"] = True
        record.write()
        if part.entrant.profiled:
            _trace(fighter, part.run, side, record, left())
        busy = "trace" in side
    finally:
        fighter.end(busy=busy)


def _expect_trl(part: Part) -> None:
    """transformers' own `generate` needs no TRL."""
    if part.entrant.system == "strop" or part.run.case.kind == "sampler":
        return
    try:
        found = version("trl")
    except PackageNotFoundError:
        found = ""
    if found != TRL_VERSION:
        raise Absent(NO_TRL)


def _trace(fighter: Fighter, run: Run, side: Results, record: Record, seconds: float) -> None:
    """One step more, which is traced and not counted; what was measured stands without it, too."""
    try:
        fighter.ask(Order("step"), seconds)
    except Absent as reason:
        side["trace"] = str(reason)
        return
    shutil.copy(fighter.log.parent / PROFILE, record.path.parent / f"{run.name}-{PROFILE}")


def _note(told: Told, folder: Path, side: Results) -> None:
    step = told.step
    row = {"seconds": told.seconds, "sampling": step.sampling, "peak": told.peak,
           "flops": step.flops, "tokens": step.tokens, "loss": step.loss,
           "grad_norm": step.grad_norm}  # fmt: skip
    side.setdefault("steps", []).append(row)
    if step.batch is not None:
        (folder / "batch.json").write_text(json.dumps(asdict(step.batch)))


def _check(fighter: Fighter, part: Part, folder: Path, side: Results, seconds: float) -> None:
    """Learn (or read) the other side's first samples: the same loss and gradient norm, or log-probs
    as near as bfloat16 lets them be."""
    samples = folder / "batch.json"
    kind = part.run.case.kind
    asks = (kind == "grpo" and part.entrant.system == "strop") or (
        kind == "sampler" and part.entrant.name == PLAIN.name
    )
    if asks and samples.exists():
        batch = Batch(**json.loads(samples.read_text()))
        read: Step = fighter.ask(Order("check", batch), seconds)
        side["check"] = {"loss": read.loss, "grad_norm": read.grad_norm}


def said(side: Mapping[str, Any]) -> str:
    """What came out of a side, in a line."""
    if "absent" in side:
        return f"no figure: {side['absent']}"
    counted = [f"{row['seconds']:.2f}" for row in side["steps"][WARM_UP:]]
    return f"{', '.join(counted)} s a step, {side['steps'][-1]['peak'] / 2**30:.1f} GiB"
