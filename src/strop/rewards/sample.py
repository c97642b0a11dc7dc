"""Real completions from a file, scored by a recipe's rewards: what `check`, `audit` and `probe`
look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.data.sources import rows
from strop.errors import DataError
from strop.rewards.compose import Reward, columns_of
from strop.types import Failure, Origin, Score, Task, Text

OWN = ("prompt", "completion", "completions", "label", "labels")


@dataclass(frozen=True, slots=True)
class Said:
    """One completion with its task and, where the file has one, a human's label (1 is right)."""

    task: Task
    completion: Text
    label: float | None


@dataclass(frozen=True, slots=True)
class Scored:
    """What was said, its scores, and what went wrong; `groups` are indices by prompt."""

    said: tuple[Said, ...]
    scores: tuple[Score, ...]
    failures: tuple[Failure, ...]
    groups: tuple[tuple[int, ...], ...]


def read_completions(path: Path) -> list[Said]:
    """Rows `{"prompt", "completion"[, "label"], ...columns}` or `{"prompt", "completions": [...]
    [, "labels": [...]], ...}`. Raises `DataError`."""
    found: list[Said] = []
    for row, origin in rows(path):
        found += _of(row, origin)
    if not found:
        raise DataError("the file holds no completions", where=str(path))
    return found


def _of(row: Any, origin: Origin) -> list[Said]:
    if "prompt" not in row or not ("completion" in row or "completions" in row):
        raise DataError(
            f"needs `prompt` and `completion` (or `completions`); found {{{', '.join(row)}}}",
            where=str(origin),
            fix="write one row a completion, with the columns the rewards read",
        )
    columns = {name: value for name, value in row.items() if name not in OWN}
    task = Task(row["prompt"], columns, origin)
    if "completion" in row:
        return [Said(task, row["completion"], _label(row.get("label"), origin))]
    labels = row.get("labels") or [None] * len(row["completions"])
    if len(labels) != len(row["completions"]):
        raise DataError(
            f"{len(row['completions'])} completions and {len(labels)} labels", where=str(origin)
        )
    return [
        Said(task, completion, _label(label, origin))
        for completion, label in zip(row["completions"], labels, strict=True)
    ]


def _label(value: Any, origin: Origin) -> float | None:
    if value is None or isinstance(value, bool | int | float):
        return None if value is None else float(value)
    raise DataError(f"`label` is {value!r}", where=str(origin), fix="write true, false or a number")


def score(reward: Reward, said: Sequence[Said]) -> Scored:
    """Judge every completion. Raises `DataError` for a column that a reward misses."""
    tasks = [one.task for one in said]
    reward.expect_columns(tasks)
    prompts, completions = [t.prompt for t in tasks], [s.completion for s in said]
    judged = reward.judge(prompts, completions, columns_of(tasks))
    by_prompt: dict[str, list[int]] = {}
    for number, task in enumerate(tasks):
        by_prompt.setdefault(json.dumps(task.prompt), []).append(number)
    groups = tuple(map(tuple, by_prompt.values()))
    return Scored(tuple(said), judged.scores, judged.failures, groups)
