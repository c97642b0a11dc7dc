"""Rubrics: what an answer has to do, criterion by criterion, with points.

# dose.toml
[[criteria]]
name = "names the dose"
text = "The answer names the dose in milligrams."
points = 5

[[criteria]]
name = "invents a study"
text = "The answer quotes a study that does not exist."
points = -4
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from strop.errors import RecipeError
from strop.files import read_text
from strop.recipe.base import Strict
from strop.recipe.loading.load import Source, load, validate

MOST_BYTES = 1 << 20

Words = Annotated[str, Field(min_length=1)]


class Criterion(Strict):
    """One thing to check: an answer that meets it gets `points`, or loses them where they are below
    0."""

    name: Words
    text: Words
    points: float


class Rubric(Strict):
    """Criteria with different names, at least one of which gives points."""

    criteria: list[Criterion] = Field(min_length=1)

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        names = [one.name for one in self.criteria]
        if len(set(names)) < len(names):
            raise ValueError(f"two criteria share a name ({', '.join(names)}): rename one")
        if any(one.points == 0 for one in self.criteria):
            raise ValueError("a criterion of 0 points never counts: give it points, or drop it")
        if self.most <= 0:
            raise ValueError("no criterion gives points: an answer could only lose")
        return self

    @property
    def most(self) -> float:
        """What the best answer gets."""
        return sum(max(0.0, one.points) for one in self.criteria)


def read_rubric(path: str | Path) -> Rubric:
    """A rubric in TOML, or in JSON or YAML with the same keys; raises `RecipeError`."""
    file = Path(path)
    if file.suffix != ".toml":
        return load(Rubric, file)
    try:
        values = tomllib.loads(read_text(file, RecipeError, limit=MOST_BYTES))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"the rubric is no TOML: {error}", where=str(file),
                          fix="mend that line") from None  # fmt: skip
    return validate(Rubric, Source(file, values, {}))
