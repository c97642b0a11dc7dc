"""Reads completions from a file and scores them with a recipe's rewards, for `check`, `audit` and
`probe`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.data.messages import answer_of
from strop.data.records import columns_in, task
from strop.data.sources import rows
from strop.errors import DataError
from strop.recipe.loading.yaml_text import shown
from strop.rewards.compose import Reward, columns_of
from strop.types import Failure, Origin, Score, Task, Text

OWN = ("prompt", "completion", "completions", "label", "labels")


@dataclass(frozen=True, slots=True)
class LabelledCompletion:
    """One completion with its task and, if the file has one, a human's label (1 is right)."""

    task: Task
    completion: Text
    label: float | None


@dataclass(frozen=True, slots=True)
class Scored:
    """Completions, their scores, and the failures; `groups` are indices by prompt."""

    said: tuple[LabelledCompletion, ...]
    scores: tuple[Score, ...]
    failures: tuple[Failure, ...]
    groups: tuple[tuple[int, ...], ...]


def read_completions(path: Path) -> list[LabelledCompletion]:
    """Rows `{"prompt", "completion"[, "label"], ...columns}` or `{"prompt", "completions": [...]
    [, "labels": [...]], ...}`. Raises `DataError`."""
    found: list[LabelledCompletion] = []
    for row, origin in rows(path):
        found += _of(row, origin)
    if not found:
        raise DataError("the file holds no completions", where=str(path), fix="add rows")
    return found


def _of(row: Any, origin: Origin) -> list[LabelledCompletion]:
    if "prompt" not in row or not ("completion" in row or "completions" in row):
        raise DataError(
            f"needs `prompt` and `completion` (or `completions`); found {{{columns_in(row)}}}",
            where=str(origin),
            fix="write one row a completion, with the columns the rewards read",
        )
    asked = task({k: v for k, v in row.items() if k == "prompt" or k not in OWN}, origin)
    if "completion" in row:
        said, labels = [row["completion"]], [row.get("label")]
    else:
        said = _list(row["completions"], "completions", origin)
        labels = _list(row.get("labels") or [None] * len(said), "labels", origin)
    if len(labels) != len(said):
        raise DataError(f"{len(said)} completions and {len(labels)} labels", where=str(origin),
                        fix="give every completion a label")  # fmt: skip
    return [
        LabelledCompletion(asked, _completion(completion, origin), _label(label, origin))
        for completion, label in zip(said, labels, strict=True)
    ]


def _list(value: Any, name: str, origin: Origin) -> list[Any]:
    if isinstance(value, list):
        return value
    raise DataError(f"`{name}` is no list", where=str(origin), fix=f"write `{name}` as [...]")


def _completion(value: Any, origin: Origin) -> Text:
    """A completion; it may be empty, because a reward has to score empty answers, too."""
    return value if isinstance(value, str) else answer_of(value, "completion", origin)


def _label(value: Any, origin: Origin) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool | int | float) and -1e300 < value < 1e300:
        return float(value)
    raise DataError(
        f"`label` is {shown(value)}", where=str(origin), fix="write true, false or a number"
    )


def score(reward: Reward, said: Sequence[LabelledCompletion]) -> Scored:
    """Judge every completion. Raises `DataError` for a column that a reward misses."""
    tasks = [one.task for one in said]
    reward.expect_columns(tasks)
    prompts, completions = [t.prompt for t in tasks], [s.completion for s in said]
    judged = reward.judge(prompts, completions, columns_of(tasks))
    by_prompt: dict[str, list[int]] = {}
    for number, prompt in enumerate(prompts):
        by_prompt.setdefault(json.dumps(prompt), []).append(number)
    groups = tuple(map(tuple, by_prompt.values()))
    return Scored(tuple(said), judged.scores, judged.failures, groups)
