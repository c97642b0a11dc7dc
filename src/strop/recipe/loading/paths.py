"""Finds the files and folders that a recipe names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any, get_args

from strop.recipe.base import LocalPath, ModelPath, Strict

LOCAL = get_args(LocalPath)[1]
MODEL = get_args(ModelPath)[1]


@dataclass(frozen=True, slots=True)
class Named:
    """`Named(("data", 0, "path"), "/work/pairs.jsonl", is_model=False)`: the key of a path in a
    recipe, the path, and whether it may also be a hub model's name."""

    loc: tuple[str | int, ...]
    path: str
    is_model: bool


def named_paths(recipe: Strict) -> Iterator[Named]:
    """Every path in a recipe, however deep, in the order of its keys."""
    yield from _below(recipe, (), None)


def _below(value: Any, loc: tuple[str | int, ...], annotation: Any) -> Iterator[Named]:
    if isinstance(value, Strict):
        for name, field in type(value).model_fields.items():
            marked = (field.annotation, *field.metadata)
            yield from _below(getattr(value, name), (*loc, name), marked)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _below(item, (*loc, number), annotation)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _below(item, (*loc, name), annotation)
    elif isinstance(value, str) and _has(annotation, MODEL):
        yield Named(loc, value, is_model=True)
    elif isinstance(value, str) and _has(annotation, LOCAL):
        yield Named(loc, value, is_model=False)


def _has(annotation: Any, mark: Any) -> bool:
    """Whether a type, or any part of it, is annotated with `mark`."""
    parts = annotation if isinstance(annotation, tuple) else get_args(annotation)
    return any(part == mark or _has(part, mark) for part in parts)


def matching(path: Path) -> list[Path]:
    """The files that match a pattern: `data/train-*.parquet`, sorted."""
    return sorted(map(Path, glob(str(path)))) if has_magic(str(path)) else []


def is_there(path: str) -> bool:
    """Whether a path, or any file that matches a pattern, exists."""
    return Path(path).exists() or bool(matching(Path(path)))
