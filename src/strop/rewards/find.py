"""Finds a component's reward function: built in, from a user's file or script, OpenAI's grader, an
endpoint."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from strop.errors import RewardError, UsageError
from strop.files import SHORT, sha256_hex
from strop.model.load import expect_weights, has_scalar_head
from strop.recipe.train.reward import ENVIRONMENT, RewardComponent
from strop.rewards.code import code_tests
from strop.rewards.endpoint import endpoint
from strop.rewards.environment import environment
from strop.rewards.exact import exact_answer
from strop.rewards.grader import read_grader
from strop.rewards.judged import JUDGED, judged_function
from strop.rewards.math import math_answer
from strop.rewards.own.functions import FunctionOutput, as_trl, is_verl, own_function
from strop.rewards.own.guard import GuardedFunction
from strop.rewards.reward_model import reward_model
from strop.rewards.schema import json_schema
from strop.rewards.style import (
    cosine_length,
    format_tags,
    language,
    length,
    overlong,
    regex,
    repetition,
    similarity,
)
from strop.rewards.tools import tool_call
from strop.text.nearest import did_you_mean

RewardFunction = Callable[..., Sequence[float | None] | FunctionOutput]

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
    ENVIRONMENT: environment,
}

RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(
        ("exact_answer", "math_answer", "code_tests", "json_schema", "tool_call", "format_tags",
         "regex", "language", "length", "similarity", *JUDGED), (0.0, 1.0),
    ),
    "repetition": (-1.0, 0.0),
    "overlong": (-1.0, 0.0),
}  # fmt: skip
"""The range of values that a built-in reward can return."""


def declared_range(component: RewardComponent) -> tuple[float, float] | None:
    """The range of values that a component can return; `None` for a user's own."""
    if component.file is not None or component.url is not None:
        return None
    return RANGES.get(component.function)


def runs_code(component: RewardComponent) -> bool:
    """Whether a component needs the sandbox. A user's own file runs outside it."""
    graded = component.function == "grader" and component.file is not None
    return graded or (component.function == "code_tests" and component.file is None)


def function_name(function: Callable[..., object]) -> str:
    """The name in a run's lineage of a function that was given from Python.

    Raises `UsageError` for anything but a plain function.
    """
    name = getattr(function, "__name__", "")
    if not inspect.isfunction(function) or not name.isidentifier():
        raise UsageError(f"{function!r} is no plain function with a name",
                         fix="define it with `def name(...):`")  # fmt: skip
    return name


def reward_names(functions: Sequence[RewardFunction]) -> dict[str, RewardFunction]:
    """Reward functions by the names that a recipe uses for them.

    Raises `RewardError` for a name that is used twice or is a built-in reward's.
    """
    named = {function_name(function): function for function in functions}
    if len(named) < len(functions):
        raise RewardError("two reward functions have one name", fix="rename one of them")
    for name in named:
        if name in (*BUILT_IN, *JUDGED, "grader"):
            raise RewardError(f"{name} is a reward that strop has",
                              fix="give your function another name")  # fmt: skip
    return named


def source_hash(function: Callable[..., object]) -> str:
    """Hash of a function's source text, 16 hex digits; functions that it calls are not included.

    Raises `UsageError` if there is no source, as for a function typed at Python's prompt.
    """
    try:
        text = inspect.getsource(function)
    except OSError:
        raise UsageError(
            f"the source of {function_name(function)} cannot be read, so the run could not say "
            "what it was trained by",
            fix="define the function in a file or in a notebook's cell",
        ) from None
    return sha256_hex(text, SHORT)


def find_function(component: RewardComponent) -> RewardFunction:
    """A component's function with TRL's signature. Raises `RewardError` if there is none."""
    if component.model is not None:
        expect_weights(component.model)
        if not has_scalar_head(component.model):
            raise RewardError(
                "the folder holds no reward model (a sequence classifier with one label)",
                where=component.model,
                fix="train one with method: reward_model",
            )
    if component.given is not None:
        return as_trl(component.given) if is_verl(component.given) else component.given
    if component.url is not None:
        return partial(endpoint, url=component.url)
    if component.file is not None and component.function == "grader":
        return read_grader(Path(component.file))
    if component.file is not None:
        if component.in_process:
            return own_function(Path(component.file), component.function)
        return GuardedFunction(Path(component.file), component.function, component.time_limit)
    if component.function in JUDGED:
        return judged_function(component)
    expect_known(component)
    return BUILT_IN[component.function]


def expect_known(component: RewardComponent) -> None:
    """Raise `RewardError` for a name that is neither strop's nor a function of the user's own."""
    own = component.file or component.url or component.model or component.given
    known = (*BUILT_IN, *JUDGED)
    if own or component.function in known:
        return
    hint = did_you_mean(component.function, known)
    raise RewardError(
        f"unknown reward {component.function!r}",
        fix=f"{hint}use one of {', '.join(known)}, or give `file:` with your own function",
        key="reward",
    )
