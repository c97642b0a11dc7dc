"""What is known of a run from its folder before its log is read."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from strop.files import LOCK
from strop.tracking.control import CONTROL, Wish, wish_of

RECIPE, LINEAGE, METRICS, SAMPLES = (
    "recipe.resolved.yaml", "lineage.json", "metrics.jsonl", "samples.jsonl",
)  # fmt: skip
State = Literal["running", "paused", "finished", "stopped"]
"""`stopped`: neither finished nor at work; `strop train --resume` goes on with it."""
MOST_BYTES = 1 << 24


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
    started: str
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
    parent = lineage.get("parent")
    data = [str(one.get("path")) for one in lineage.get("data") or () if isinstance(one, dict)]
    made = [str(one["path"]) for one in lineage.get("manifests") or () if isinstance(one, dict)]
    return RunFacts(
        folder, str(lineage.get("method", "unknown")), state, owner, wish,
        str(parent.get("path", "")) if isinstance(parent, dict) else "",
        tuple(data), tuple(made), _resumed(lineage), _began(folder), tuple(problems),
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
        noted = json.loads((folder / LOCK).read_text(encoding="utf-8"))
        process, host = int(noted["pid"]), str(noted["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if host == socket.gethostname():
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass  # it is there, and somebody else's
    return f"process {process} on {host}"


def recipe_of(folder: Path) -> tuple[dict[str, Any], str]:
    """The recipe of a run as plain data, and what is wrong with its file (nothing: empty)."""
    path = folder / RECIPE
    try:
        recipe = yaml.safe_load(_bounded(path))
    except (OSError, ValueError, yaml.YAMLError) as error:
        return {}, f"{path.name} cannot be read: {_first_line(error)}"
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
    if isinstance(run.get("epochs"), int | float) and epoch:
        return max(step, round(step * float(run["epochs"]) / epoch))
    return None


def _resumed(lineage: Mapping[str, Any]) -> tuple[int, ...]:
    noted = lineage.get("resumed") or ()
    return tuple(sorted({int(one["step"]) for one in noted if isinstance(one, dict)}))


def _began(folder: Path) -> str:
    """When the folder's recipe was written, as seconds since 1970 in words a page can sort."""
    try:
        return f"{(folder / RECIPE).stat().st_mtime:.0f}"
    except OSError:
        return "0"


def _json(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        found = json.loads(_bounded(path))
    except FileNotFoundError:
        problems.append(f"{path.name} is missing: the run had not begun, or was copied in part")
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} cannot be read: {_first_line(error)}")
        return {}
    if not isinstance(found, dict):
        problems.append(f"{path.name} is of another form")
        return {}
    return found


def _bounded(path: Path) -> str:
    with path.open("rb") as stream:
        return stream.read(MOST_BYTES).decode("utf-8")


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
