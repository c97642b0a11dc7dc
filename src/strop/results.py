"""What the functions of `strop` return: folders and verdicts as tables and curves.

A result of a run or an eval is a view of its folder, so it can also be made of what the command
line wrote, and while the run goes on: `TrainResult("runs/sft").metrics["loss"]`.
"""

from __future__ import annotations

import difflib
import html
import json
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from strop.errors import OutputError, UsageError
from strop.evals.gate.judge import counted
from strop.evals.records import read_records
from strop.evals.summary import read_summary
from strop.registry.records import Entry
from strop.registry.tree import WIDTH, drawn, table
from strop.tracking.notebook import frame_of
from strop.tracking.report import FIRST, HIDDEN, curves
from strop.tracking.runlog import read_rows
from strop.types import Check, EvalRecord, Verdict, VerdictName

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text: `Table(("score", "mean"), (("greedy/accuracy", "0.4400"),))`."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        """Lines of at most 100 columns."""
        return "\n".join(table([self.headings, *self.rows])) if self.rows else ""

    def _repr_html_(self) -> str:
        """For notebooks."""
        lines = [_cells(self.headings, "th"), *(_cells(row, "td") for row in self.rows)]
        return f"<table>{''.join(lines)}</table>" if self.rows else ""


def _cells(row: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in row)}</tr>"


class Shown(ABC):
    """A title, a table and lines below it: text of at most 100 columns, HTML in a notebook."""

    __slots__ = ()

    @property
    @abstractmethod
    def title(self) -> str:
        """What this is the result of, in a line."""

    @property
    @abstractmethod
    def table(self) -> Table:
        """The result itself."""

    @property
    def notes(self) -> list[str]:
        """What else a reader has to know."""
        return []

    def __str__(self) -> str:
        lines = [*self.title.splitlines(), *str(self.table).splitlines(), *self.notes]
        wrapped = [textwrap.wrap(line, WIDTH, subsequent_indent="  ") or [""] for line in lines]
        return "\n".join(part for parts in wrapped for part in parts)

    def _repr_html_(self) -> str:
        notes = html.escape("\n".join(self.notes))
        below = f"<pre>{notes}</pre>" if notes else ""
        return f"<p>{html.escape(self.title)}</p>{self.table._repr_html_()}{below}"


class Curve(NamedTuple):
    """One metric over the optimizer steps: `Curve(steps=(1, 2), values=(2.1, 1.9))`.

    Step 0 is what was measured before the first step.
    """

    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Metrics(Shown):
    """The log of a run: `Metrics(({"step": 1, "loss": 2.1}, {"step": 2, "loss": 1.9}))`.

    `rows` are as in `metrics.jsonl`; `metrics["loss"]` is one of their columns as a `Curve`.
    """

    rows: tuple[Mapping[str, Any], ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.rows)

    def __getitem__(self, name: str) -> Curve:
        """The steps at which a metric was logged, and its values; `UsageError` for no metric."""
        if name not in self.names:
            near = difflib.get_close_matches(name, self.names, 1, 0.5)
            fix = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(self.names)}"
            raise UsageError(f"the run has logged no metric {name!r}", fix=fix)
        points = [(row["step"], row[name]) for row in self.rows if row.get(name) is not None]
        return Curve(tuple(step for step, _ in points), tuple(value for _, value in points))

    @property
    def names(self) -> list[str]:
        """All metrics, those that people look at first."""
        found = {name for row in self.rows for name in row} - {"step", "alarms"}
        return [name for name in FIRST if name in found] + sorted(found - set(FIRST))

    def plot(self, *names: str) -> go.Figure:
        """A plotly figure with a panel for each of these metrics, or for all; held-out values
        (`eval_...`) lie over the trained ones."""
        wanted = names or [name for name in self.names if name not in HIDDEN]
        for name in wanted:
            self[name]
        kept = {"step", *wanted, *(f"eval_{name}" for name in wanted)}
        return curves([{k: v for k, v in row.items() if k in kept} for row in self.rows])

    @property
    def title(self) -> str:
        return f"{len(self.rows)} rows"

    @property
    def table(self) -> Table:
        """First, last, lowest and highest value of every metric that people look at."""
        shown = [(name, self[name].values) for name in self.names if name not in HIDDEN]
        rows = [
            (name, *(f"{value:.4g}" for value in (seen[0], seen[-1], min(seen), max(seen))))
            for name, seen in shown
            if seen
        ]
        return Table(("metric", "first", "last", "lowest", "highest"), tuple(rows))


class RaisedAlarm(NamedTuple):
    """`RaisedAlarm(step=40, action="warn", said="entropy fell below 0.1")`."""

    step: int
    action: str
    said: str


@dataclass(frozen=True, slots=True, init=False)
class TrainResult(Shown):
    """A training run by its folder: `TrainResult("runs/sft")`, finished or not.

    Everything is read from the folder when it is asked for. Raises `OutputError` for a folder that
    holds no run.
    """

    folder: Path

    def __init__(self, folder: str | Path) -> None:
        object.__setattr__(self, "folder", Path(folder))
        if not (self.folder / "lineage.json").exists():
            raise OutputError("is no folder of a run", where=str(folder),
                              fix="give the `output` of a recipe that was trained")  # fmt: skip

    @property
    def final(self) -> Path:
        """The folder of the trained model; `OutputError` while there is none."""
        if not self.finished:
            raise OutputError("the run is not finished", where=str(self.folder),
                              fix="go on with `resume`")  # fmt: skip
        return self.folder / "final"

    @property
    def finished(self) -> bool:
        return (self.folder / "final").is_dir()

    @property
    def metrics(self) -> Metrics:
        """The rows of `metrics.jsonl`."""
        log = self.folder / "metrics.jsonl"
        return Metrics(tuple(read_rows(log)) if log.exists() else ())

    @property
    def alarms(self) -> tuple[RaisedAlarm, ...]:
        """The alarms that rang, in order."""
        rows = [(row["step"], row["alarms"]) for row in self.metrics if row.get("alarms")]
        return tuple(RaisedAlarm(step, *alarm) for step, found in rows for alarm in found)

    def frame(self) -> pd.DataFrame:
        """The metrics as a `pandas.DataFrame`: a row for each step, a column for each metric."""
        return frame_of(self.folder)

    @property
    def lineage(self) -> dict[str, Any]:
        """What the run was made from: `lineage.json`."""
        found: dict[str, Any] = json.loads((self.folder / "lineage.json").read_text())
        return found

    @property
    def title(self) -> str:
        state = "finished" if self.finished else "not finished"
        steps = self.metrics.rows[-1]["step"] if len(self.metrics) else 0
        return f"{self.lineage['method']}: {steps} steps, {state}: {self.folder}"

    @property
    def table(self) -> Table:
        return self.metrics.table

    @property
    def notes(self) -> list[str]:
        return [f"alarm at step {a.step} ({a.action}): {a.said}" for a in self.alarms]


@dataclass(frozen=True, slots=True, init=False)
class EvalResult(Shown):
    """A measured suite by its folder: `EvalResult("evals/sft").scores["greedy/accuracy"]`.

    `scores` are means over the items that could be scored, `figures` those of all answers of a task
    together (docs/evals.md), `kl` is KL(model || reference) in nats per sampled token, `None`
    without a reference. Raises `OutputError` for a folder that holds no eval.
    """

    folder: Path
    summary: Mapping[str, Any]

    def __init__(self, folder: str | Path) -> None:
        summary = read_summary(folder)
        if summary is None:
            raise OutputError("is no folder of an eval", where=str(folder),
                              fix="give the `output` of an eval that was finished")  # fmt: skip
        object.__setattr__(self, "folder", Path(folder))
        object.__setattr__(self, "summary", summary)

    @property
    def scores(self) -> dict[str, float]:
        return dict(self.summary["scores"])

    @property
    def figures(self) -> dict[str, dict[str, float]]:
        return dict(self.summary["figures"])

    @property
    def kl(self) -> float | None:
        found: float | None = self.summary["kl"]
        return found

    @property
    def records(self) -> tuple[EvalRecord, ...]:
        """Every item's score, from `records.jsonl`."""
        return tuple(read_records(self.folder))

    @property
    def title(self) -> str:
        return f"suite {self.summary['suite']}: {next(iter(self.summary['model'].values()))}"

    @property
    def table(self) -> Table:
        """Mean of every score, over how many items, and how many could not be scored."""
        counted = self.summary["items"]
        rows = [
            (name, f"{mean:.4f}", str(counted[name]["items"]), str(counted[name]["unscored"]))
            for name, mean in self.scores.items()
        ]
        return Table(("score", "mean", "items", "not scored"), tuple(rows))

    @property
    def notes(self) -> list[str]:
        lines = [] if self.kl is None else [f"KL to reference, nats per token {self.kl:.4f}"]
        for task, figures in self.figures.items():
            named = [f"{name} {value:.3g}" for name, value in figures.items()]
            lines.append(f"  {task}")
            lines += [f"    {'  '.join(named[n : n + 5])}" for n in range(0, len(named), 5)]
        return lines


@dataclass(frozen=True, slots=True)
class GateResult(Shown):
    """What the gate decided: `result.passed`, `result.verdict`, `result.sentence`.

    `policy` is the policy's name, `output` the file that the verdict was written to; both may be
    `None`. `decision` has everything, groups to look at and remarks included.
    """

    decision: Verdict
    policy: str | None = None
    output: Path | None = None

    @property
    def passed(self) -> bool:
        return self.decision.name == "pass"

    @property
    def verdict(self) -> VerdictName:
        """`pass`, `regressed` or `inconclusive`."""
        return self.decision.name

    @property
    def sentence(self) -> str:
        """What was decided, and because of what."""
        return self.decision.sentence

    @property
    def checks(self) -> tuple[Check, ...]:
        """What was demanded of every score, and what was found."""
        return self.decision.checks

    @property
    def title(self) -> str:
        named = "" if self.policy is None else f"policy {self.policy}\n"
        return named + self.sentence

    @property
    def table(self) -> Table:
        headings = ("check", "of", "change", "interval", "bound", "verdict", "lost", "gained")
        return Table(headings, tuple(map(_check_cells, self.checks)))

    @property
    def notes(self) -> list[str]:
        return [
            *(f"note: {remark}" for remark in self.decision.remarks),
            *(_needed(check) for check in self.checks if check.verdict == "inconclusive"),
            *(
                f"group {s.score} {s.column}={s.value}: {s.estimate:+.3f} "
                f"[{s.low:+.3f}, {s.high:+.3f}] q {s.q_value:.3f}"
                for s in self.decision.slices[:5]
            ),
        ]


def _check_cells(check: Check) -> tuple[str, ...]:
    if check.kind == "band":
        change, bound = f"x{check.estimate:.3f}", f"{check.bound:g} to {check.upper:g}"
        interval = f"[{check.low:.3f}, {check.high:.3f}]"
    else:
        change, bound = f"{check.estimate:+.3f}", f"{check.bound:+g}"
        interval = f"[{check.low:+.3f}, {check.high:+.3f}]"
    moved = ("" if count is None else str(count) for count in (check.lost, check.gained))
    return (check.name, check.kind, change, interval, bound, check.verdict, *moved)


def _needed(check: Check) -> str:
    """What it would take to decide an inconclusive check."""
    size = counted(check, check.n)
    shown = "" if check.detectable is None else f"{size} show {check.detectable:.3f}; "
    needed = "no number of items would do" if not check.n_needed else f"{check.n_needed} would do"
    floor = "" if check.floor is None else f", noise floor {check.floor:.3f}"
    return f"{check.name}: {shown}{needed}{floor}"


@dataclass(frozen=True, slots=True)
class PromoteResult(Shown):
    """A promotion: `PromoteResult("algebra", entry)`; `entry.id` names it in the registry."""

    name: str
    entry: Entry

    @property
    def title(self) -> str:
        return f"{self.name} is now {self.entry.id}"

    @property
    def table(self) -> Table:
        said = self.entry.verdict["name"] if self.entry.verdict else "overridden"
        facts = {"weights": self.entry.weights, "verdict": said, "by": self.entry.who}
        return Table(("entry", self.entry.id), tuple(facts.items()))

    @property
    def notes(self) -> list[str]:
        return drawn(self.entry.lineage)


class StageResult(NamedTuple):
    """`StageResult("sft", kind="train", outcome="done", said="runs/sft/final")`."""

    name: str
    kind: str
    outcome: str
    said: str


@dataclass(frozen=True, slots=True)
class RunResult(Shown):
    """What a pipeline did: one row for every stage, and one more for every time it was run
    again."""

    pipeline: str
    stages: tuple[StageResult, ...]

    @property
    def title(self) -> str:
        return f"pipeline {self.pipeline}"

    @property
    def table(self) -> Table:
        return Table(("stage", "kind", "outcome"), tuple(stage[:3] for stage in self.stages))

    @property
    def notes(self) -> list[str]:
        return [f"{stage.name}: {stage.said}" for stage in self.stages]
