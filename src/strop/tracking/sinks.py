"""Sends a run's metrics to trackers: MLflow, Weights & Biases, Trackio.

The run's own folder stays authoritative. A tracker writes to files on this machine and contacts no
server unless the user's environment names one. A failing tracker gives a warning and never ends a
run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from strop.errors import UsageError
from strop.files import write_whole

FOLDER = "sinks"
PROJECT = "strop"
"""The experiment or project that runs are filed under."""

LONGEST = 6000
"""Characters that MLflow keeps of a value."""

FAILURES = 3
"""Failures in a row after which a tracker is no longer called, because waiting for a server takes
long."""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A run as a tracker sees it: `TrackedRun("dpo-7", Path("runs/dpo-7/sinks"), {"method": "dpo",
    "optim.learning_rate": 1e-6}, {"final": "/data/runs/dpo-7/final"})`.

    The tracker may keep files in `folder`; it records the paths of `artifacts` and does not copy
    them.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    artifacts: Mapping[str, str]


class Sink(Protocol):
    """One tracker."""

    def start(self, run: TrackedRun, known: str | None) -> str:
        """Begin the run, or resume the tracker's run with the id `known`; returns the id."""

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send one row of the log."""

    def finish(self, done: bool) -> None:
        """End the run; `done` says whether it reached its last step."""


class MlflowSink:
    """Into `MLFLOW_TRACKING_URI`, else an SQLite file."""

    def start(self, run: TrackedRun, known: str | None) -> str:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.folder / 'mlflow.db'}"
        self.client = MlflowClient(tracking_uri=address)
        if known is None:
            known = self._create(run)
        self.client.update_run(known, status="RUNNING")
        self.run = known
        return known

    def _create(self, run: TrackedRun) -> str:
        from mlflow.entities import Param, RunTag

        found = self.client.get_experiment_by_name(PROJECT)
        home = found.experiment_id if found else self.client.create_experiment(PROJECT)
        made = str(self.client.create_run(home, run_name=run.name).info.run_id)
        params = [Param(_allowed(name), str(value)[:LONGEST]) for name, value in run.config.items()]
        tags = [RunTag(f"{PROJECT}.{name}", path) for name, path in run.artifacts.items()]
        for first in range(0, len(params), 100):  # as many as one call may hold
            self.client.log_batch(made, params=params[first : first + 100])
        self.client.log_batch(made, tags=tags)
        return made

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        rows = [Metric(_allowed(name), value, now, step) for name, value in metrics.items()]
        self.client.log_batch(self.run, metrics=rows)

    def finish(self, done: bool) -> None:
        self.client.set_terminated(self.run, "FINISHED" if done else "KILLED")


def _allowed(name: str) -> str:
    """MLflow names hold letters, digits and a few signs."""
    return re.sub(r"[^\w\-. :/]", "_", name)


class WandbSink:
    """Offline (`wandb sync` sends it later) unless `WANDB_MODE` says otherwise."""

    def start(self, run: TrackedRun, known: str | None) -> str:
        os.environ.setdefault("WANDB_MODE", "offline")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        known = known or uuid.uuid4().hex[:8]
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=known,
            resume="allow",
            dir=str(run.folder),
            config={**run.config, "artifacts": dict(run.artifacts)},
        )
        return known

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)

    def finish(self, done: bool) -> None:
        self.run.finish(exit_code=0 if done else 1)


class TrackioSink:
    """Into Trackio's own folder on this machine (`TRACKIO_DIR`), or the server or space that the
    environment names.

    Its messages go to stderr, because stdout may be read by a machine.
    """

    def start(self, run: TrackedRun, known: str | None) -> str:
        import trackio

        with contextlib.redirect_stdout(sys.stderr):
            self.run = trackio.init(
                project=PROJECT,
                name=run.name,
                config={**run.config, "artifacts": dict(run.artifacts)},
                resume="never" if known is None else "must",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        found = str(self.run.id)
        if known not in (None, found):  # Trackio finds runs by name, and names may be reused
            self.finish(done=False)
            raise LookupError(f"a later run is named {run.name} as well, so this one is not found")
        return found

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)

    def finish(self, done: bool) -> None:
        import trackio

        with contextlib.redirect_stdout(sys.stderr):
            trackio.finish()


SINKS: dict[str, Callable[[], Sink]] = {
    "mlflow": MlflowSink,
    "wandb": WandbSink,
    "trackio": TrackioSink,
}


def expect_sinks(names: Sequence[str]) -> None:
    """Raise `UsageError` for a tracker that is not installed."""
    for name in names:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # a folder of that name is no package
            raise UsageError(
                f"run.sinks names {name}, which is not installed",
                fix=f"pip install 'strop[{name}]', or drop it from run.sinks",
            )


class Sinks:
    """The trackers of one run. The last step sent to each is stored beside the run, so that a
    resumed run continues there and sends no step twice."""

    def __init__(self, names: Sequence[str], run: TrackedRun) -> None:
        self.members = [_SinkState(name, SINKS[name](), run) for name in names]

    def __enter__(self) -> Self:
        for sink in self.members:
            sink.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for sink in self.members:
            sink.finish(done=kind is None)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        for sink in self.members:
            sink.step(step, metrics)


class _SinkState:
    """A tracker, the last step sent to it, and its failures in a row."""

    def __init__(self, name: str, sink: Sink, run: TrackedRun) -> None:
        self.name, self.sink, self.run = name, sink, run
        self.path = run.folder / f"{name}.json"
        kept = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.known: str | None = kept.get("run")
        self.last: int = kept.get("step", -1)
        self.failed, self.warned = 0, False

    def start(self) -> None:
        self.run.folder.mkdir(parents=True, exist_ok=True)
        if self._try(self._begin):
            self._keep()
        else:
            self.failed = FAILURES  # without a run there is nothing to send to

    def _begin(self) -> None:
        self.known = self.sink.start(self.run, self.known)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        if step > self.last and self.failed < FAILURES:
            self.last = step
            self._keep()  # first: a run killed in between must not send the step twice
            self._try(lambda: self.sink.step(step, metrics))

    def finish(self, done: bool) -> None:
        if self.failed < FAILURES:
            self._try(lambda: self.sink.finish(done))

    def _try(self, call: Callable[[], None]) -> bool:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - a tracker may raise anything
            self.failed += 1
            if not self.warned:
                said = f"{type(error).__name__}: {error}"
                warnings.warn(
                    f"sink {self.name} failed ({said}); the run goes on and its own log is whole",
                    stacklevel=4,
                )
            self.warned = True
            return False
        self.failed = 0
        return True

    def _keep(self) -> None:
        write_whole(self.path, json.dumps({"run": self.known, "step": self.last}))
