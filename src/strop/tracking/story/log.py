"""A run's `metrics.jsonl` as columns, read on while the run goes on."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.tracking.reading import FAULTS, opened, said

SHOWN_PROBLEMS = 5
"""Unreadable lines that are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that rang: `Alarm("displacement", 9, "stop", "displacement at step 9: ...")`."""

    name: str
    step: int
    action: str
    said: str


class MetricsLog:
    """The rows of a log by metric. `refresh` reads what was written since; a log that was cut (a
    resumed run drops the rows after its checkpoint) is read anew.

    A line that is no row is told in `problems`, and the rows around it are kept. A last line
    without its end is being written, and is read when it is whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inode = -1
        self._forget()

    def refresh(self) -> bool:
        """Read on; returns whether something changed."""
        try:
            stat = self.path.stat()
        except OSError:
            changed = self._read > 0
            self._forget()
            return changed
        if stat.st_size < self._read or stat.st_ino != self._inode:
            self._forget()
            self._inode = stat.st_ino
        if stat.st_size == self._read:
            return False
        try:
            with opened(self.path) as stream:
                stream.seek(self._read)
                text = stream.read()
        except OSError as error:
            self._unread, self._faults = 1, [(0, said(error))]
            return False
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            self._take(line)
        return bool(whole)

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def step(self) -> int:
        """The last step that was logged; 0 before the first."""
        return self._steps[-1] if self._steps else 0

    @property
    def last_row(self) -> frozenset[str]:
        """The metrics that the last row names, as a number or as none (`null`)."""
        return self._last

    @property
    def names(self) -> list[str]:
        return list(self._columns)

    def series(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The steps at which a metric was logged, and its values, both of shape [N]."""
        values = np.array(self._columns.get(name, ()), dtype=np.float64)
        steps = np.array(self._steps[: len(values)], dtype=np.int64)
        there = np.isfinite(values)
        return steps[there], values[there]

    @property
    def problems(self) -> list[str]:
        """What could not be read, in words."""
        named = [f"{self.path.name}, line {number}: {why}" for number, why in self._faults]
        rest = self._unread - len(named)
        return [*named, f"{self.path.name}: {rest} more lines cannot be read"] if rest else named

    def _forget(self) -> None:
        self._read, self._line = 0, 0
        self._steps: array[int] = array("q")
        self._columns: dict[str, array[float]] = {}
        self.alarms: list[Alarm] = []
        self._faults, self._unread = list[tuple[int, str]](), 0
        self._last: frozenset[str] = frozenset()

    def _take(self, line: bytes) -> None:
        self._line += 1
        try:
            row = json.loads(line)
            step = int(row["step"])
            values = _numbers(row)
            rang = alarms_of(row.get("alarms", ()), step)
            self._steps.append(step)
        except FAULTS:
            self._unread += 1
            if len(self._faults) < SHOWN_PROBLEMS:
                self._faults.append((self._line, "the line is no row of metrics, and is left out"))
            return
        self._last = frozenset(row)
        for name, value in values.items():
            self._put(name, value)
        self.alarms += rang

    def _put(self, name: str, value: float) -> None:
        column = self._columns.setdefault(name, array("d"))
        missing = len(self._steps) - 1 - len(column)
        if missing:
            column.extend([math.nan] * missing)
        column.append(value)


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a row. Raises `OverflowError` for one that is no double."""
    return {
        name: float(value)
        for name, value in row.items()
        if isinstance(value, int | float) and name != "step"
    }


def alarms_of(noted: Sequence[Any], step: int) -> list[Alarm]:
    """The alarms of a row, which notes each as its action and what it said."""
    return [
        Alarm(str(said).split(" at step ", 1)[0], step, str(action), str(said))
        for action, said in noted
    ]
