"""Options that the verbs of `strop data` share."""

from __future__ import annotations

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


def settings_of(cls: type[StrictT], given: Mapping[str, Any]) -> StrictT:
    """The settings of a verb from its options; those that were not given keep their defaults."""
    from strop.errors import RecipeError, UsageError
    from strop.recipe.loading.load import load

    try:
        return load(cls, {name: value for name, value in given.items() if value is not None})
    except RecipeError as error:
        raise UsageError(error.problem, fix=error.fix) from None
