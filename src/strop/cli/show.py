"""What a person sees while work goes on: progress on a terminal, plain lines in a pipe."""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import platform
import time
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from strop.distributed.launch import speaks
from strop.tracking.remaining import Remaining, spoken

if TYPE_CHECKING:
    from strop.train.monitor.profile import Profile
    from strop.train.preflight.prepared import Prepared
    from strop.types import StepRecord

SHOWN = ("loss", "reward", "rewards/accuracies", "rewards/margins", "entropy",
         "completions/mean_length", "frac_reward_zero_std")  # fmt: skip
EVALUATED = ("loss", "reward", "rewards/accuracies")
EVERY_SECONDS = 5.0
"""How often a plain line is printed when nobody watches a terminal."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_ONE_GIB = 2**30


def setup() -> None:
    """Quiet libraries: strop says itself what matters. What is imported by now is never garbage."""
    import transformers

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    keep_freed_memory()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for library in ("torch", "bitsandbytes"):
        logging.getLogger(library).setLevel(logging.ERROR)
    # deprecations inside libraries are ours to follow, not the user's
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    if not speaks():
        warnings.simplefilter("ignore")
    gc.freeze()
    gc.enable()


def keep_freed_memory() -> None:
    """Let glibc reuse freed tensors instead of returning them to the system after every operation.

    A training step frees and asks again for the same large buffers; by default each round trip
    faults every page anew. Does nothing outside glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _ONE_GIB)
    libc.mallopt(_M_TRIM_THRESHOLD, _ONE_GIB)


def checks_line(checks: Mapping[str, Any]) -> str:
    """`records 896, dropped 0, ...` on one line."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in checks.items()
    )


class Progress:
    """A bar with the metrics people watch; every few seconds a line where there is no terminal."""

    def __init__(self, as_json: bool, console: Console | None = None) -> None:
        self.as_json = as_json
        self.console = console or Console(highlight=False)
        self.bar: RichProgress | None = None
        self.last = 0.0
        self.task: Any = None
        self.begun = False
        self.remaining = Remaining()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, prepared: Prepared, step: int) -> None:
        self.begun = True
        self.remaining = Remaining()
        if self.as_json:
            return
        for source in prepared.sources:
            self.console.print(f"  read {source.line()}", soft_wrap=True, markup=False)
        self.console.print(f"  checked: {checks_line(prepared.checks)}", soft_wrap=True)
        if self.console.is_terminal:
            self.bar = RichProgress(
                TextColumn("  "), BarColumn(24), MofNCompleteColumn(),
                TextColumn("{task.fields[m]}"), TextColumn("{task.fields[left]}"),
                console=self.console, transient=True,
            )  # fmt: skip
            self.task = self.bar.add_task(
                "", total=prepared.total_steps, completed=step, m="", left=""
            )
            self.bar.start()

    def step(self, record: StepRecord) -> None:
        if self.as_json:
            print(json.dumps({"step": record.step, **record.metrics}), flush=True)
            return
        named = [n for n in SHOWN if n in record.metrics]
        held_out = [f"eval_{n}" for n in EVALUATED if f"eval_{n}" in record.metrics]
        held_out += [name for name in record.metrics if name.startswith("dev/")]
        shown = "  ".join(f"{n} {record.metrics[n]:.3g}" for n in [*named, *held_out])
        now, done = time.monotonic(), record.step == record.total
        took = record.metrics.get("step_time")  # what is measured before step 1 is no step
        seconds = (
            None if took is None else self.remaining.after(record.step, record.total, now, took)
        )
        left = "" if seconds is None or done else f"  {spoken(seconds)} left"
        if self.bar is not None:
            self.bar.update(self.task, completed=record.step, m=shown, left=left)
        if done or held_out or (self.bar is None and now - self.last > EVERY_SECONDS):
            self.last = now
            said = f"  step {record.step}/{record.total}  {shown}{left}"
            self.console.print(said, soft_wrap=True)
        if done:
            self.stop()

    def profile(self, profile: Profile) -> None:
        from strop.train.monitor.profile import table

        if self.as_json:
            print(json.dumps({"profile": profile.plain()}), flush=True)
        else:
            self.console.print(table(profile), soft_wrap=True, markup=False)

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


class Counting:
    """A bar per task of an eval; a plain line per finished task where there is no terminal."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(highlight=False)
        self.bar = RichProgress(
            TextColumn("  {task.description}"), BarColumn(24), MofNCompleteColumn(),
            TimeRemainingColumn(), console=self.console, transient=True,
            disable=as_json or not self.console.is_terminal,
        )  # fmt: skip
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def advance(self, name: str, done: int, total: int) -> None:
        if name not in self.tasks:
            self.tasks[name] = self.bar.add_task(name, total=total)
        self.bar.update(self.tasks[name], completed=done)
        if done == total and not self.as_json:
            self.console.print(f"  {name}: {total} items", markup=False)
