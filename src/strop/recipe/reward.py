"""What a completion is worth."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from strop.recipe.base import LocalPath, Strict


class RewardComponent(Strict):
    """One reward function: a built-in by name, or `function` in the user's own file.

    `options` are passed on as keyword arguments; `name` labels it in logs (default: `function`).
    """

    function: str
    file: LocalPath | None = None
    weight: float = 1.0
    name: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.name or self.function
