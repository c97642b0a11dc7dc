"""A profile of a run's first steps: a table of where a step's time goes, and a trace.

The first step warms up. The next ones are timed by a stopwatch alone, because torch's profiler
slows down what it traces. One step more is traced.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path
from typing import Any, get_args

import torch
from torch.profiler import ProfilerActivity, record_function

from strop.errors import UsageError
from strop.files import write_whole
from strop.tracking.phases import Phase, Spent, Stopwatch
from strop.types import StepRecord

FOLDER, TABLE, TRACE = "profile", "profile.md", "trace.json"

AROUND = 2
"""Steps that are not timed: the one that warms up and the one that is traced."""

LONGEST = 50_000
"""Operations a trace keeps: about 10 MB, which every viewer opens."""

ON_DEVICE = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
"""Categories of a trace's events that keep the device busy."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The traced step: how long it took, the share of it in which the device had nothing to do
    (None on a CPU), and how many operations were kept of how many."""

    seconds: float
    device_idle: float | None
    kept: int
    operations: int


@dataclass(frozen=True, slots=True)
class Profile:
    """Mean time of each phase over the timed `steps` (step numbers); the user asked for `asked` of
    them. All phases add up to `whole`."""

    asked: int
    steps: range
    phases: dict[Phase, Spent]
    whole: Spent
    trace: Trace

    @classmethod
    def of(cls, spent: Mapping[Phase, Spent], asked: int, steps: range, trace: Trace) -> Profile:
        """From the total time of each phase over the timed steps; evaluation is listed if there was
        one."""
        nothing = Spent(0.0, 0.0)
        names = [n for n in get_args(Phase) if n != "evaluation" or n in spent]
        phases = {name: spent.get(name, nothing).over(len(steps)) for name in names}
        return cls(asked, steps, phases, sum(phases.values(), nothing), trace)

    def plain(self) -> dict[str, Any]:
        """For machines: seconds of a step and busy cores by phase."""
        return {
            "steps": len(self.steps),
            "step_seconds": self.whole.seconds,
            "seconds": {name: spent.seconds for name, spent in self.phases.items()},
            "cores": {name: spent.cores() for name, spent in self.phases.items()},
            "device_idle": self.trace.device_idle,
        }


@dataclass(frozen=True, slots=True)
class Profiler:
    """Profiles the steps of a run into its folder and hands the result to `done`."""

    asked: int
    folder: Path
    device: torch.device
    done: Callable[[Profile], None]

    def watch(self, steps: Iterator[StepRecord]) -> Iterator[StepRecord]:
        """The same steps. There have to be three at least: see `refuse_profile`."""
        record = next(steps)
        yield record
        first = record.step + 1
        timed = min(self.asked, record.total - record.step - (AROUND - 1))
        watch = Stopwatch(synchronize=self._synchronize)
        for _ in range(timed):
            with watch.running():
                record = next(steps)
            yield record
        record, trace = self._traced(steps)
        profile = Profile.of(watch.spent, self.asked, range(first, first + timed), trace)
        write_whole(self.folder / TABLE, table(profile))
        self.done(profile)
        yield record
        yield from steps

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _traced(self, steps: Iterator[StepRecord]) -> tuple[StepRecord, Trace]:
        activities = [ProfilerActivity.CPU]
        if self.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        watch = Stopwatch(synchronize=self._synchronize, span=record_function)
        with torch.profiler.profile(activities=activities) as profiler, watch.running():
            record = next(steps)
        self.folder.mkdir(exist_ok=True)
        path = self.folder / TRACE
        profiler.export_chrome_trace(str(path))
        seconds = sum(spent.seconds for spent in watch.spent.values())
        return record, slimmed(path, seconds, on_device=self.device.type == "cuda")


def refuse_profile(asked: int, left: int) -> None:
    """Raise `UsageError` unless there is a step to warm up, one to time and one to trace."""
    if asked < 1:
        raise UsageError(
            f"--profile {asked} times no step", fix="give the number of steps to time, such as 5"
        )
    if left <= AROUND:
        raise UsageError(
            f"--profile needs {AROUND + 1} steps at least (one warms up, one is timed, one is "
            f"traced), but {left} are left to run",
            fix="raise run.steps, or drop --profile",
        )


def table(profile: Profile) -> str:
    """The profile as Markdown of at most 100 columns."""
    steps, whole = profile.steps, profile.whole
    short = "" if len(steps) == profile.asked else f" ({profile.asked} were asked for)"
    lines = [
        f"Where a step's time goes: mean of {len(steps)} steps from step {steps[0]} on{short}",
        "",
        "| phase      | seconds a step |   share | cores busy |",
        "|------------|---------------:|--------:|-----------:|",
    ]
    for name, spent in [*profile.phases.items(), ("a step", whole)]:
        share = spent.seconds / whole.seconds
        cores = f"{spent.cores():.2f}" if spent.seconds else "-"
        lines.append(f"| {name:<10} | {spent.seconds:>14.4f} | {share:>7.1%} | {cores:>10} |")
    return "\n".join([*lines, "", *_about(profile.trace)]) + "\n"


def _about(trace: Trace) -> list[str]:
    """What the reader has to know about the table and the trace."""
    lines = ["idle: what no phase covers (metrics, bookkeeping); saving and logging are not timed."]
    lines.append(
        f"{TRACE} (for chrome://tracing or ui.perfetto.dev): one step more, {trace.seconds:.3f} s "
        "traced."
    )
    if trace.kept < trace.operations:
        lines.append(f"It keeps the {trace.kept} longest of {trace.operations} operations.")
    if trace.device_idle is not None:
        lines.append(
            f"device idle in the traced step: {trace.device_idle:.1%}, at most: tracing slows "
            "down what feeds it."
        )
    return lines


def slimmed(path: Path, seconds: float, *, on_device: bool) -> Trace:
    """Reduce a trace file to the phases and the longest operations; the step took `seconds`."""
    trace = json.loads(path.read_text(encoding="utf-8"))
    events = trace["traceEvents"]
    spans = [e for e in events if e["ph"] == "X"]
    operations = [e for e in spans if e["cat"] != "user_annotation"]
    idle = None
    if on_device:
        kernels = (e for e in operations if e["cat"] in ON_DEVICE)
        busy = covered((e["ts"], e["ts"] + e["dur"]) for e in kernels) / 1e6
        idle = max(0.0, 1 - busy / seconds)
    kept = nlargest(LONGEST, operations, key=lambda e: e["dur"])
    if len(kept) < len(operations):
        rest = [e for e in events if e["ph"] == "M" or e.get("cat") == "user_annotation"]
        write_whole(path, json.dumps({**trace, "traceEvents": rest + kept}))
    return Trace(seconds, idle, len(kept), len(operations))


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union: `covered([(0, 2), (1, 3), (5, 6)]) == 4`."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        if stop > end:
            total += stop - max(start, end)
            end = stop
    return total
