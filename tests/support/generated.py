"""Generated data in tests: rewards that are known, and what a run wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from strop.curate.manifest import sources_of
from strop.curate.synthetic.generation import Target
from strop.recipe.train.data import DataSource
from strop.recipe.train.reward import RewardComponent
from strop.rewards.compose import Reward
from strop.text.parse import plain
from tests.support.runs import write_jsonl

Judge = Callable[[str], float | None]
"""The words of an answer -> its reward."""


def known_reward(judge: Judge) -> Reward:
    """A reward that says what `judge` does."""

    def known(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        return [judge(plain(completion)) for completion in completions]

    return Reward([RewardComponent(function="known")], functions=[known])


def prompts_file(folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[DataSource]:
    """Rows as the input of a run."""
    return sources_of([write_jsonl(folder / "prompts.jsonl", rows)])


def target(folder: Path, **options: Any) -> Target:
    return Target(folder / "out.jsonl", **options)


def lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(folder: Path) -> list[dict[str, Any]]:
    """The records of `target(folder)`."""
    return lines(folder / "out.jsonl")


def left_out(folder: Path) -> list[tuple[str, str]]:
    """(kind, reason) of everything that was dropped."""
    return [(row["kind"], row["reason"]) for row in lines(folder / "out.dropped.jsonl")]
