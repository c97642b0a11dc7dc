"""Which share of this machine's own matrix products strop reaches: `make bench ARGS="--shares"`.

strop alone, on one thread, counted in CPU seconds, so that waiting for others costs nothing:

    products  step  products  step  products ...

A share is the arithmetic of a step that cannot be avoided, over what bare products at the model's
shapes, timed just before and just after it, would have done in the step's CPU time. One more step
is traced, to say where the rest goes.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import wraps
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.cases import CASES, ON_CPU, SMALL_VOCABULARY, STROP, Run, model_scale
from benchmarks.make import make_here
from benchmarks.ours import StropSampler, StropTrainer
from benchmarks.sides import Place, Step, Stop
from benchmarks.table import Row
from strop.engines.local.continuous import Continuous
from strop.model.decode import TreeDecoder
from strop.tracking.phases import Phase

LIBRARIES = ("torch", "transformers")
"""Nothing else takes part."""

WARM_UP = 1

LONGEST = 240.0
"""CPU seconds after which a run is not continued: the step that follows is the last."""

COUNTED = ("dpo", "grpo-long", "sampler-short", "sampler-long")
LEFT_OUT: frozenset[Phase] = frozenset({"sampling", "reward"})
"""Phases of an online step that are not its update."""

GOALS = {"dpo": 0.55, "grpo": 0.40, "sampler": 0.30}
"""Shares to reach, by kind of work; of GRPO its update alone counts."""

KINDS = ("products", "attention", "vocabulary", "elementwise", "copies", "optimizer", "python")
"""Where a step's time goes: matrix products of linear layers; attention; reading the vocabulary
(log-probs, entropies, draws); norms, rotations and activations; gathering and copying; AdamW with
clipping; and what no operation of torch accounts for: Python, dispatch and autograd."""

PRODUCTS = frozenset({"aten::mm", "aten::addmm", "aten::linear", "aten::matmul",
                      "mkldnn::_linear_pointwise", "mkldnn::_reorder_linear_weight"})  # fmt: skip
ATTENTION = ("scaled_dot_product", "flash_attention", "aten::bmm", "aten::baddbmm")
COPIES = ("index", "aten::cat", "copy", "clone", "contiguous", "embedding", "gather", "scatter",
          "aten::fill", "aten::zero", "aten::new_", "aten::empty", "aten::pad", "aten::constant",
          "aten::stack", "aten::unique", "aten::arange", "AccumulateGrad")  # fmt: skip
WITHIN = {"ReadVocabulary": "vocabulary", "draw": "vocabulary", "attend": "attention",
          "optimizer": "optimizer"}  # fmt: skip
"""What is done inside of these belongs to them, whatever it is."""


@dataclass(frozen=True, slots=True)
class Share:
    """A run's figures: CPU seconds of every counted step, what bare products would have done in
    them (operations a second) and the operations that cannot be avoided; the traced step's time by
    kind, as shares of it."""

    name: str
    kind: str
    cpu: list[float]
    rate: list[float]
    flops: list[float]
    spent: dict[str, float]

    @property
    def shares(self) -> list[float]:
        """Of every counted step."""
        return [f / (c * r) for f, c, r in zip(self.flops, self.cpu, self.rate, strict=True)]

    def row(self) -> Row:
        """As JSON: every counted step, and the figures quoted from them."""
        shares = self.shares
        return {
            "run": {"name": self.name},
            "shares": shares,
            "share": statistics.median(shares),
            "share_min": min(shares),
            "share_max": max(shares),
            "goal": GOALS[self.kind],
            **asdict(self),
        }


def kind_of(name: str, ancestors: Iterable[str]) -> str:
    """The kind of an operation of torch by its name and those of the operations it is part of."""
    for ancestor in (name, *ancestors):
        for start, kind in WITHIN.items():
            if ancestor.startswith(start):
                return kind
    if name in PRODUCTS:
        return "products"
    if any(part in name for part in ATTENTION):
        return "attention"
    if any(part in name for part in COPIES):
        return "copies"
    return "elementwise" if name.startswith("aten::") else "python"


def spent_by_kind(events: Iterable[Any]) -> dict[str, float]:
    """Shares of the traced time by kind, without what is done while answers are sampled for an
    update. A phase's time that none of its operations accounts for is Python's."""
    spent = dict.fromkeys(KINDS, 0.0)
    for event in events:
        above, ancestors = event.cpu_parent, []
        while above is not None:
            ancestors.append(above.name)
            above = above.cpu_parent
        if not LEFT_OUT & {event.name, *ancestors}:
            spent[kind_of(event.name, ancestors)] += event.self_cpu_time_total
    return {kind: value / sum(spent.values()) for kind, value in spent.items()}


@contextmanager
def marked() -> Iterator[None]:
    """Name in traces what is no operation of torch."""
    undo = []
    for owner, name, kind in ((Continuous, "_draw", "draw"), (TreeDecoder, "attend", "attend")):
        original = getattr(owner, name)
        setattr(owner, name, _named(original, kind))
        undo.append((owner, name, original))
    try:
        yield
    finally:
        for owner, name, original in undo:
            setattr(owner, name, original)


def _named(method: Callable[..., Any], kind: str) -> Callable[..., Any]:
    @wraps(method)
    def named(*args: Any) -> Any:
        with record_function(kind):
            return method(*args)

    return named


class Meter:
    """Takes the time of a side's steps: one that warms up, those that count, and one traced."""

    def __init__(self, run: Run, side: StropTrainer | StropSampler) -> None:
        self.run, self.side = run, side
        self.cpu: list[float] = []
        self.flops: list[float] = []
        self.rate: list[float] = []
        self.spent: dict[str, float] = {}
        self._open = ExitStack()
        self._trace: Any = None
        self._before = self._rate()
        self._first = self._began = time.process_time()

    def tick(self, describe: Callable[[], Step]) -> None:
        """A step is done: count it, ask the machine for its speed, begin the next."""
        seconds = time.process_time() - self._began - self._left_out()
        if self._trace is not None:
            self._open.close()
            self.spent = spent_by_kind(self._trace.events())
            raise Stop
        after = self._rate()
        self.cpu.append(seconds)
        self.flops.append(self._needed(describe()))
        self.rate.append((self._before + after) / 2)
        self._before = after
        if self._enough():
            self._trace = self._open.enter_context(profile(activities=[ProfilerActivity.CPU]))
            self._open.enter_context(record_function("step"))
        self._began = time.process_time()

    def _enough(self) -> bool:
        """Whether the next step is the one that is traced."""
        late = time.process_time() - self._first > LONGEST and len(self.cpu) > WARM_UP
        return late or len(self.cpu) == self.run.steps - 1

    def _left_out(self) -> float:
        """CPU seconds of the step that do not belong to an update."""
        if not isinstance(self.side, StropTrainer):
            return 0.0
        return sum(self.side.watch.spent[p].cpu for p in LEFT_OUT if p in self.side.watch.spent)

    def _needed(self, step: Step) -> float:
        if isinstance(self.side, StropTrainer) and self.run.case.kind == "grpo":
            return self.side.update_flops()
        return step.flops

    def _rate(self) -> float:
        return self.side.rate(time.process_time)


def share_of(run: Run, folder: Path) -> Share:
    """Measure one run in this process."""
    torch.set_num_threads(1)
    make_here(run, folder)
    place = Place(folder, folder / "shares")
    place.scratch.mkdir(exist_ok=True)
    side = (StropSampler if run.case.kind == "sampler" else StropTrainer)(run, STROP, place)
    side.load()
    if isinstance(side, StropTrainer):
        side.watch.span = record_function
    with marked(), suppress(Stop):
        meter = Meter(run, side)
        side.run(meter.tick)
    counted = slice(WARM_UP, None)
    return Share(run.name, run.case.kind, meter.cpu[counted], meter.rate[counted],
                 meter.flops[counted], meter.spent)  # fmt: skip


def runs_of(shapes: Iterable[str], rounds: int, cases: Iterable[str] = COUNTED) -> list[Run]:
    """These cases at these shapes."""
    names = list(cases)
    return [
        Run(model_scale(CASES[name], shape), shape, SMALL_VOCABULARY, WARM_UP + rounds + 1)
        for shape in shapes
        for name in names
    ]


def measured(run: Run, work: Path) -> Row:
    """A run's figures, from a process of its own. Raises `RuntimeError` where it failed."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    folder = (work / f"{run.name}-{run.steps}").resolve()
    process = spawn.Process(target=_tell, args=(theirs, run, folder))
    process.start()
    theirs.close()
    try:
        row: Row = ours.recv()
    except EOFError:
        raise RuntimeError(f"{run.name} could not be measured, for the reason above") from None
    finally:
        process.join()
    return row


def _tell(link: Connection, run: Run, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    link.send(share_of(run, folder).row())


HEAD = ("run", "share (min-max)", "goal", *KINDS)


def markdown(rows: Iterable[Row]) -> str:
    """The table of docs/speed.md, case by case: shares, and where a step's time goes in percent."""
    lines = [list(HEAD), ["---"] * len(HEAD)]
    order = [run.name for case in COUNTED for run in runs_of(ON_CPU, 0, [case])]
    for row in sorted(rows, key=lambda one: order.index(one["run"]["name"])):
        share = f"{row['share']:.2f} ({row['share_min']:.2f}-{row['share_max']:.2f})"
        spent = [f"{100 * row['spent'][kind]:.0f} %" for kind in KINDS]
        lines.append([row["run"]["name"], share, f"{row['goal']:.2f}", *spent])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
