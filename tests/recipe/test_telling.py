"""A mistyped key that says which member of a union is meant is told by the one it is near to."""

from __future__ import annotations

from typing import Any

import pytest

from strop.errors import RecipeError
from strop.recipe.loading.load import load_recipe

GRPO: dict[str, Any] = {"method": "grpo", "model": "m", "data": "d.jsonl", "output": "o",
                        "reward": [{"function": "environment"}]}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "meant"),
    [({"file": "env.py", "clas": "Calculator"}, "did you mean `class` by `clas`?"),
     ({"usr": {"script": []}}, "did you mean `user` by `usr`?"),
     ({"tool": []}, "did you mean `tools` by `tool`?")],
)  # fmt: skip
def test_what_was_meant(given: dict[str, Any], meant: str) -> None:
    with pytest.raises(RecipeError, match="give one of class, user, tools") as refused:
        load_recipe({**GRPO, "rollout": {"environment": given}})
    assert meant in str(refused.value)


def test_a_key_that_is_near_to_none_is_not_guessed() -> None:
    with pytest.raises(RecipeError) as refused:
        load_recipe({**GRPO, "rollout": {"environment": {"quux": 1}}})
    assert "did you mean" not in str(refused.value)
