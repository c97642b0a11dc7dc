"""A Python function as a tool: its JSON schema, by its type hints and its docstring."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

FORM = (
    "give every argument a type hint, and the function a docstring with a sentence and, below "
    "`Args:`, a line `name: what it is` for every argument"
)
STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def schema_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The JSON schema of a function, by its type hints and its docstring (Google's form). Raises
    `ValueError`, or what transformers raises, for one that cannot be described."""
    from transformers.utils.chat_template_utils import get_json_schema

    if yields(function):
        raise ValueError("it yields, and a tool has to return its result")
    for parameter in parameters_of(function):
        if parameter.kind in STARRED:
            raise ValueError(f"the argument {parameter.name} stands for any number of arguments")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ValueError(
                f"the argument {parameter.name} (before `/`) cannot be given by its name"
            )
    return dict(get_json_schema(function))


def yields(function: Callable[..., Any]) -> bool:
    """Whether a call makes a generator in place of a result."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def place_of(function: Any) -> str:
    """`add (line 12)`."""
    return f"{function.__name__} (line {inspect.unwrap(function).__code__.co_firstlineno})"
