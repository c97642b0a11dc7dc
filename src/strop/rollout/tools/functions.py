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

    starred = [p.name for p in parameters_of(function) if p.kind in STARRED]
    if starred:
        raise ValueError(f"the argument {starred[0]} stands for any number of arguments")
    return dict(get_json_schema(function))


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def place_of(function: Any) -> str:
    """`add (line 12)`."""
    return f"{function.__name__} (line {inspect.unwrap(function).__code__.co_firstlineno})"
