"""Options that the verbs of `strop data` share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from strop.recipe.base import Strict

StrictT = TypeVar("StrictT", bound="Strict")

Inputs = Annotated[list[Path], typer.Argument(help="Data files or folders.")]
OutputPath = Annotated[
    Path, typer.Option("--output", help="A .jsonl file, or a folder, to write the records to.")
]
MaxBad = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Share of rows that may be unusable; 0.01 unless given."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier output.")]

Model = Annotated[
    str, typer.Option(help="A model folder or hub name; with --endpoint the server's name for it.")
]
Endpoint = Annotated[
    str | None, typer.Option(help="An OpenAI-compatible server, http://host:port/v1.")
]
Cache = Annotated[
    Path | None, typer.Option(help="Where a server's answers are kept; beside the output.")
]
Requests = Annotated[int | None, typer.Option(min=1, help="Most requests to a server.")]
Tokens = Annotated[int | None, typer.Option(min=1, help="Most tokens that a server may use.")]
AtOnce = Annotated[int | None, typer.Option(min=1, help="Requests on their way together.")]
PerSecond = Annotated[float | None, typer.Option(help="Most requests begun in a second.")]


def settings_of(
    cls: type[StrictT], given: Mapping[str, Any], said_as: Mapping[str, str] | None = None
) -> StrictT:
    """The settings of a verb from its options; those that were not given keep their defaults.

    What is wrong is said of the options, not of the keys that a recipe would have. An option is
    called as its key is, but for those of `said_as`: `{"kinds": "--kind"}`.
    """
    from strop.errors import RecipeError, UsageError
    from strop.recipe.loading.load import load

    options = _options(cls, given) | dict(said_as or {})
    try:
        return load(cls, {name: value for name, value in given.items() if value is not None})
    except RecipeError as error:
        fix = None if error.fix is None else _of_options(error.fix, options)
        raise UsageError(_of_options(error.problem, options), fix=fix) from None


KEY = re.compile(r"`([a-z_]+)(?:\.([a-z_]+))?[\w.]*(?:: (\w+))?`")
"""A key in a message, perhaps with its value: `kinds.0`, `sampling.max_tokens`, `unit: tokens`."""


def _options(cls: type[Strict], given: Mapping[str, Any]) -> dict[str, str]:
    """`{"max_tokens": "--max-tokens"}`: every key that a command fills in, those of a part of the
    settings (`sampling`) too."""
    from pydantic import BaseModel

    found = {}
    for name, value in given.items():
        found[name] = f"--{name.replace('_', '-')}"
        part = cls.model_fields[name].annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            found |= {key: f"--{key.replace('_', '-')}" for key in value}
    return found


def _of_options(said: str, options: Mapping[str, str]) -> str:
    """A message with options in the place of keys: `--max-tokens`, `--unit tokens`."""

    def option(found: re.Match[str]) -> str:
        above, key, value = found.groups()
        named = options.get(key) or options.get(above)
        return found.group() if named is None else f"{named} {value}" if value else named

    return KEY.sub(option, said)
