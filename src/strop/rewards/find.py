"""Where a reward function comes from: built in, a user's file, OpenAI's grader, an endpoint."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from strop.errors import RewardError
from strop.model.load import expect_weights, has_scalar_head
from strop.recipe.reward import RewardComponent
from strop.rewards.code import code_tests
from strop.rewards.endpoint import endpoint
from strop.rewards.exact import exact_answer
from strop.rewards.format import format_tags
from strop.rewards.grader import read_grader
from strop.rewards.math import math_answer
from strop.rewards.reward_model import reward_model
from strop.rewards.schema import json_schema
from strop.rewards.style import (
    cosine_length,
    language,
    length,
    overlong,
    regex,
    repetition,
    similarity,
)
from strop.rewards.tools import tool_call
from strop.rewards.verl import as_trl, is_verl

RewardFunction = Callable[..., Sequence[float | None]]

BUILT_IN: dict[str, RewardFunction] = {
    "exact_answer": exact_answer,
    "math_answer": math_answer,
    "code_tests": code_tests,
    "json_schema": json_schema,
    "tool_call": tool_call,
    "format_tags": format_tags,
    "regex": regex,
    "language": language,
    "length": length,
    "overlong": overlong,
    "cosine_length": cosine_length,
    "repetition": repetition,
    "similarity": similarity,
    "reward_model": reward_model,
}

RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(
        ("exact_answer", "math_answer", "code_tests", "json_schema", "tool_call", "format_tags",
         "regex", "language", "length", "similarity"), (0.0, 1.0),
    ),
    "repetition": (-1.0, 0.0),
    "overlong": (-1.0, 0.0),
}  # fmt: skip
"""What a built-in reward can return at all."""


def runs_code(component: RewardComponent) -> bool:
    """Whether a component needs the sandbox. An own file runs in strop's process: it is yours."""
    graded = component.function == "grader" and component.file is not None
    return graded or (component.function == "code_tests" and component.file is None)


def find_function(component: RewardComponent) -> RewardFunction:
    """A component's function with TRL's signature; `RewardError` where there is none."""
    if component.model is not None:
        expect_weights(component.model)
        if not has_scalar_head(component.model):
            raise RewardError(
                "the folder holds no reward model (a sequence classifier with one label)",
                where=component.model,
                fix="train one with method: reward_model",
            )
    if component.url is not None:
        return partial(endpoint, url=component.url)
    if component.file is not None and component.function == "grader":
        return read_grader(Path(component.file))
    if component.file is not None:
        function = _from_file(Path(component.file), component.function)
        return as_trl(function) if is_verl(function) else function
    if component.function not in BUILT_IN:
        raise RewardError(
            f"unknown reward {component.function!r}",
            fix=f"use one of {', '.join(BUILT_IN)}, or give `file:` with your own function",
        )
    return BUILT_IN[component.function]


def own_names(path: Path) -> dict[str, Any]:
    """What a user's Python file defines. Raises `RewardError` where it cannot be imported."""
    spec = importlib.util.spec_from_file_location(f"strop_user_{path.stem}", path)
    if spec is None or spec.loader is None or not path.exists():
        raise RewardError("no such Python file", where=str(path), fix="check `file:`")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # noqa: BLE001 - the user's file may raise anything
        raise RewardError(
            f"the file cannot be imported: {type(error).__name__}: {error}", where=str(path)
        ) from None
    return vars(module)


def _from_file(path: Path, name: str) -> RewardFunction:
    found = own_names(path)
    function = found.get(name)
    if not callable(function):
        offered = [n for n, v in found.items() if inspect.isfunction(v)]
        raise RewardError(
            f"the file has no function {name!r}",
            where=str(path),
            fix=f"it has {', '.join(offered) or 'none'}",
        )
    return function  # type: ignore[no-any-return]
