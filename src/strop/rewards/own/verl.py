"""verl's reward functions, one sample at a time, as TRL's, a batch at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from strop.text.parse import plain
from strop.types import Text

WANTED = ("solution_str", "ground_truth")


def is_verl(function: Callable[..., Any]) -> bool:
    """`compute_score(data_source, solution_str, ground_truth, extra_info=None)`."""
    return all(name in inspect.signature(function).parameters for name in WANTED)


def as_trl(function: Callable[..., Any]) -> Callable[..., list[float | None]]:
    """The function for a batch. `ground_truth` is the column of that name, or what verl keeps in
    `reward_model["ground_truth"]`, or the column `answer`; a dictionary's `score` counts."""

    def scores(
        prompts: Sequence[Text], completions: Sequence[Text], **columns: Any
    ) -> list[float | None]:
        found = []
        for number, completion in enumerate(completions):
            row = {name: values[number] for name, values in columns.items()}
            value = function(
                data_source=row.get("data_source"),
                solution_str=plain(completion),
                ground_truth=_ground_truth(row),
                extra_info=row.get("extra_info"),
            )
            score = value["score"] if isinstance(value, dict) else value
            found.append(None if score is None else float(score))
        return found

    return scores


def _ground_truth(row: dict[str, Any]) -> Any:
    if "ground_truth" in row:
        return row["ground_truth"]
    if isinstance(row.get("reward_model"), dict):
        return row["reward_model"].get("ground_truth")
    return row.get("answer")
