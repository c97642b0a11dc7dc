"""Unions whose members are told apart by a key that only one of them has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Discriminator

WHICH_KIND = "which_kind"
"""The first word of the type of the error; the others are the telling keys."""


def tag(key: str) -> str:
    """The name of a union's member, which is no key of it."""
    return f"<{key}>"


def told_by(kinds: Mapping[str, type[BaseModel]], problem: str) -> Discriminator:
    """Tells members by their keys: `told_by({"class": Own, "user": User}, "give one of class,
    user")`, where the union tags `Own` with `tag("class")`. What has none of the keys, or several,
    is refused with `problem`; a text has the tag `<name>`."""

    def kind_of(given: Any) -> str | None:
        if isinstance(given, str):
            return tag("name")
        if isinstance(given, BaseModel):
            return next((tag(key) for key, kind in kinds.items() if kind is type(given)), None)
        found = [key for key in kinds if isinstance(given, dict) and key in given]
        return tag(found[0]) if len(found) == 1 else None

    type_ = " ".join((WHICH_KIND, *kinds))
    return Discriminator(kind_of, custom_error_type=type_, custom_error_message=problem)
