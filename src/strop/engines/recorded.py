"""Answers that were recorded elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import torch

from strop.data.forms import Row
from strop.data.items import item_of
from strop.data.sources import data_hash, rows
from strop.engines.engine import Chances, PromptedTask, Request, Sampling
from strop.errors import DataError, MissingEvidenceError, UsageError
from strop.recipe.template import TemplateRecipe
from strop.text.parse import plain, spoken
from strop.types import Answer, Origin, Task, Tree


class RecordedEngine:
    """Rows `{"item" or "prompt", "completion" or "output"[, "sample"]}`.

    `item` is a task's `id`; without it the prompt has to equal the task's. Several rows of one item
    are its samples, in the order of the file if they have no number.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def identity(self) -> Mapping[str, Any]:
        return {"outputs": self.path, "outputs_sha256": data_hash([self.path])}

    def with_template(self, template: TemplateRecipe) -> RecordedEngine:
        return self  # what was said was said

    def prompted(self, tasks: Sequence[Task], sampling: Sampling) -> list[PromptedTask]:
        return [PromptedTask(task, ()) for task in tasks]

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        for number, request in enumerate(requests):
            yield number, self._said(request.prompt.task, request.key.index)

    def score(self, trees: Sequence[Tree]) -> list[tuple[float, ...]]:
        self.policy()

    def choose(self, prompts: Sequence[PromptedTask], options: Sequence[str]) -> list[Chances]:
        self.policy()

    def publish(self, weights: Mapping[str, torch.Tensor]) -> int:
        raise UsageError(
            "recorded answers take no weights", where=self.path, fix="sample with the model itself"
        )

    def policy(self) -> NoReturn:
        raise UsageError(
            "recorded answers have no likelihoods", where=self.path,
            fix="leave such tasks out of the suite, or measure a model folder",
        )  # fmt: skip

    def _said(self, task: Task, sample: int) -> Answer:
        for key in (item_of(task), plain(task.prompt)):
            if (key, sample) in self._texts:
                return Answer(self._texts[key, sample], "stop")
        raise MissingEvidenceError(
            f"no answer to item {item_of(task)!r} ({task.origin}), sample {sample}",
            where=self.path,
            fix="record an answer to every item, for as many samples as are asked for; an item is "
            "the `id` of a row, where it has one",
        )

    @cached_property
    def _texts(self) -> dict[tuple[str, int], str]:
        """Texts by (item or prompt, sample)."""
        found: dict[tuple[str, int], str] = {}
        seen: Counter[str] = Counter()
        for row, origin in rows(Path(self.path)):
            key, text = _parsed(row, origin)
            sample = row.get("sample", seen[key])
            if not isinstance(sample, int) or (key, sample) in found:
                raise DataError(
                    f"sample {sample!r} of {key!r} is no new number", where=str(origin),
                    fix="number an item's samples 0, 1, 2, or leave `sample` out",
                )  # fmt: skip
            seen[key] += 1
            found[key, sample] = text
        return found


def _parsed(row: Row, origin: Origin) -> tuple[str, str]:
    key = str(row["item"]) if "item" in row else plain(row.get("prompt") or "")
    said = row.get("completion", row.get("output"))
    if not key or not isinstance(said, str | list):
        raise DataError(
            "the row holds no answer", where=str(origin),
            fix='write {"item": "7", "completion": "..."}, or the prompt in place of the item',
        )  # fmt: skip
    return key, spoken(said) if isinstance(said, list) else said
