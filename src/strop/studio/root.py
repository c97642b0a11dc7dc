"""What there is under the studio's root: runs, gates, registries, data reports, traffic."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path

from strop.errors import UsageError
from strop.tracking.control import CONTROL
from strop.tracking.reading import FAULTS, opened, read_json
from strop.tracking.story.facts import LINEAGE, METRICS, RECIPE, SAMPLES, is_run
from strop.tracking.story.log import MetricsLog
from strop.tracking.story.samples import SamplesLog
from strop.tracking.story.story import Story, read_story

SKIPPED = ("checkpoint-", "final", "base", "profile", "node_modules", "__pycache__", ".")
"""Folders with these names, or with names that begin so where a sign stands at the end, hold no
further runs."""
OTHERS = frozenset({RECIPE, "summary.json", "labels.jsonl"})
"""Beside them JSONL files are logs, scores or labels, and no records."""
PROFILE = "profile/profile.md"
MOST_FOLDERS = 50_000
FRESH = 3.0
"""Seconds for which a walk through the root stays true: a new run shows so much later."""
OPEN_LOGS = 8
"""Logs that are kept in memory; a run of 10,000 steps takes some megabytes."""


@dataclass(frozen=True, slots=True)
class Found:
    """Paths under the root, by what they are; all relative to it and in order."""

    runs: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    registries: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    traffic: tuple[str, ...] = ()
    evals: tuple[str, ...] = ()


@dataclass(slots=True)
class Root:
    """A folder that the studio shows. Whatever a request names is looked up below it, and a path
    that leads out of it (also by a link) is refused."""

    folder: Path
    _found: tuple[float, Found] | None = None
    _logs: OrderedDict[str, tuple[MetricsLog, SamplesLog]] = field(default_factory=OrderedDict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()

    def inside(self, name: str) -> Path:
        """The path of that name. Raises `UsageError` where it is not below the root."""
        if "\x00" in name:
            raise UsageError("this is no path", fix="follow a link of the studio")
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder):
            raise UsageError("this path leads out of the folder that the studio shows", where=name,
                             fix="start the studio with a folder that holds it")  # fmt: skip
        return path

    def found(self) -> Found:
        """What there is, looked for again where the last look is some seconds old."""
        with self._lock:
            if self._found is None or time.monotonic() - self._found[0] > FRESH:
                found = walk(self.folder)
                self._found = (time.monotonic(), found)
            return self._found[1]

    def finals(self) -> list[str]:
        """The models that finished runs ended with."""
        runs = self.found().runs
        return [f"{run}/final" for run in runs if (self.folder / run / "final").is_dir()]

    def run(self, name: str) -> Path:
        """The folder of a run. Raises `UsageError` where there is none of that name."""
        folder = self.inside(name)
        if not is_run(folder):
            raise UsageError("this folder holds no run", where=name, fix="choose one of the list")
        for file in (METRICS, RECIPE, LINEAGE, SAMPLES, CONTROL, PROFILE):
            self.inside(str(folder / file))  # none of them is a link that leads out
        return folder

    def story(self, name: str) -> Story:
        """The story of a run. Raises `UsageError` where there is none."""
        folder = self.run(name)
        with self._lock:
            return read_story(folder, *self._open(name, folder))

    def log(self, name: str) -> MetricsLog:
        """The log of a run as it is now. Raises `UsageError` where there is none."""
        folder = self.run(name)
        with self._lock:
            log, _ = self._open(name, folder)
            log.refresh()
            return log

    def _open(self, name: str, folder: Path) -> tuple[MetricsLog, SamplesLog]:
        logs = self._logs.pop(name, None)
        logs = logs or (MetricsLog(folder / METRICS), SamplesLog(folder / SAMPLES))
        self._logs[name] = logs
        while len(self._logs) > OPEN_LOGS:
            self._logs.popitem(last=False)
        return logs


def walk(folder: Path) -> Found:
    """Look through a folder for what strop writes."""
    found: dict[str, list[str]] = {one.name: [] for one in fields(Found)}
    for place, files in _folders(folder):
        here = os.path.relpath(place, folder)
        names = set(files)
        if RECIPE in names:
            found["runs"].append(here)
        if "summary.json" in names and "records.jsonl" in names:
            found["evals"].append(here)
        if any(name.startswith("traffic-") for name in names):
            found["traffic"].append(here)
            continue  # its index is no registry, and its rows are no records
        for name in files:
            path = os.path.normpath(os.path.join(here, name))
            stem, end = os.path.splitext(name)
            if end == ".json" and f"{stem}.html" in names:
                keys = _keys(place / name)
                if {"name", "sentence", "checks"} <= keys:
                    found["gates"].append(path)
                elif {"files", "findings"} <= keys:
                    found["checks"].append(path)
            elif end == ".db" and _is_database(place / name):
                found["registries"].append(path)
            elif end == ".jsonl" and not names & OTHERS and not stem.endswith(".db.rows"):
                found["records"].append(path)
    return Found(**{name: tuple(sorted(paths)) for name, paths in found.items()})


def _folders(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    for place, folders, files in islice(os.walk(folder), MOST_FOLDERS):
        folders[:] = [name for name in folders if not _skipped(name)]
        yield Path(place), files


def _skipped(name: str) -> bool:
    return any(name == one or (one[-1] in "-." and name.startswith(one)) for one in SKIPPED)


def _keys(path: Path) -> frozenset[str]:
    """The keys of a JSON object in a file of at most 4 MiB; none where it holds another thing."""
    try:
        said = read_json(path, 1 << 22)
    except FAULTS:
        return frozenset()
    return frozenset(said) if isinstance(said, dict) else frozenset()


def _is_database(path: Path) -> bool:
    try:
        with opened(path) as stream:
            return stream.read(16) == b"SQLite format 3\x00"
    except OSError:
        return False
