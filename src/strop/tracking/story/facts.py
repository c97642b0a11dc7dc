"""What is known of a run from its folder before its log is read."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from strop.files import LOCK
from strop.tracking.control import CONTROL, Wish, wish_of
from strop.tracking.reading import FAULTS, read_json, read_text, said

RECIPE, LINEAGE, METRICS, SAMPLES = (
    "recipe.resolved.yaml", "lineage.json", "metrics.jsonl", "samples.jsonl",
)  # fmt: skip
State = Literal["running", "paused", "finished", "stopped"]
"""`stopped`: neither finished nor at work; `strop train --resume` goes on with it."""
MOST_RECIPE = 1 << 20
"""Bytes of a recipe."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run: `RunFacts(Path("runs/dpo"), "dpo", "running", "process 4242 on box", ...)`.

    `owner` is the process at work, `parent` the model that the run began with, `data` the files it
    reads, and `manifests` those of the data verbs that made them. `resumed` are the steps after
    which it was resumed.
    """

    folder: Path
    method: str
    state: State
    owner: str | None
    wish: Wish
    parent: str
    data: tuple[str, ...]
    manifests: tuple[str, ...]
    resumed: tuple[int, ...]
    started: float
    problems: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.folder.name


def is_run(folder: Path) -> bool:
    return (folder / RECIPE).is_file()


def facts_of(folder: Path) -> RunFacts:
    """Read what a run's folder says of it; what cannot be read is told in `problems`."""
    problems: list[str] = []
    lineage = _json(folder / LINEAGE, problems)
    owner = owner_of(folder)
    wish = wish_of(folder)
    if (folder / "final").is_dir():
        state: State = "finished"
    elif owner is not None:
        state = "paused" if wish == "pause" else "running"
    else:
        state = "stopped"
    return RunFacts(
        folder, str(lineage.get("method", "unknown")), state, owner, wish,
        "".join(_paths([lineage.get("parent")])), _paths(lineage.get("data")),
        _paths(lineage.get("manifests")), _resumed(lineage), _began(folder), tuple(problems),
    )  # fmt: skip


Stamp = tuple[object, ...]


def stamp_of(folder: Path) -> Stamp:
    """Changes when anything changes that is told of a run; costs a few looks at the folder, no
    file is read but the lock of a run at work."""
    times = [_time(folder / name) for name in (METRICS, LINEAGE, CONTROL, "final")]
    return (*times, owner_of(folder))


def _time(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def owner_of(folder: Path) -> str | None:
    """The process that works in a folder, from the note in its lock; `None` where it is gone.

    The lock itself is not tried: to hold it for a moment would turn away a run that begins just
    then. A process of another machine cannot be looked at, and counts as there.
    """
    try:
        noted = read_json(folder / LOCK)
        process, host = int(noted["pid"]), str(noted["host"])
    except FAULTS:
        return None
    if host == socket.gethostname():
        try:
            os.kill(process, 0)
        except (ProcessLookupError, OverflowError):
            return None
        except PermissionError:
            pass  # it is there, and somebody else's
    return f"process {process} on {host}"


def recipe_of(folder: Path) -> tuple[dict[str, Any], str]:
    """The recipe of a run as plain data, and what is wrong with its file (nothing: empty)."""
    path = folder / RECIPE
    try:
        recipe = yaml.safe_load(read_text(path, MOST_RECIPE))
    except (*FAULTS, yaml.YAMLError) as error:
        return {}, f"{path.name} cannot be read: {said(error)}"
    if not isinstance(recipe, dict):
        return {}, f"{path.name} is no recipe"
    return recipe, ""


def steps_of(recipe: Mapping[str, Any], step: int, epoch: float | None) -> int | None:
    """How many steps a run is to take: what its recipe says, or what its epochs come to at the pace
    so far; `None` where neither is known."""
    wanted = recipe.get("run")
    run = wanted if isinstance(wanted, dict) else {}
    if isinstance(run.get("steps"), int):
        return int(run["steps"])
    epochs = run.get("epochs")
    if isinstance(epochs, int | float) and math.isfinite(epochs) and epoch:
        return max(step, round(step * float(epochs) / epoch))
    return None


def _paths(noted: Any) -> tuple[str, ...]:
    """The paths of what a lineage lists; what is of another form is left out."""
    listed = noted if isinstance(noted, list) else []
    return tuple(str(one["path"]) for one in listed if isinstance(one, dict) and "path" in one)


def _resumed(lineage: Mapping[str, Any]) -> tuple[int, ...]:
    noted = lineage.get("resumed")
    steps = [one.get("step") for one in noted if isinstance(one, dict)] if isinstance(
        noted, list
    ) else []  # fmt: skip
    return tuple(sorted({step for step in steps if isinstance(step, int)}))


def _began(folder: Path) -> float:
    """When the folder's recipe was written, in seconds since 1970."""
    try:
        return (folder / RECIPE).stat().st_mtime
    except OSError:
        return 0.0


def _json(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        found = read_json(path)
    except FileNotFoundError:
        problems.append(f"{path.name} is missing: the run had not begun, or was copied in part")
        return {}
    except FAULTS as error:
        problems.append(f"{path.name} cannot be read: {said(error)}")
        return {}
    if not isinstance(found, dict):
        problems.append(f"{path.name} is of another form")
        return {}
    return found
