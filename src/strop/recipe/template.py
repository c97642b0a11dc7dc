"""Overrides of a tokenizer's chat template."""

from __future__ import annotations

import os
from datetime import date
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from strop.recipe.base import Strict, absolute

DAY = date(2026, 1, 1)
"""The day that templates write if a recipe or suite names none.

A template that writes today's date gives the same record other tokens tomorrow: two evals of the
same weights would differ, and so would a run that is resumed after midnight.
"""

Scalar = bool | int | float | str | None


def _file_or_name(value: str, info: ValidationInfo) -> str:
    """An absolute path for a file; a word that is no file is the name of a template."""
    local = absolute(value, info)
    return value if value.isidentifier() and not os.path.exists(local) else local


TemplatePath = Annotated[str, AfterValidator(_file_or_name)]
"""A file with a Jinja chat template, or the name of one that strop has (`chatml`)."""


Tokens = Annotated[
    tuple[str, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)
]
"""One token or several: `<|im_end|>`, `["<|return|>", "<|call|>"]`."""


class TemplateRecipe(Strict):
    """`TemplateRecipe(chat_template="chatml", template_options={"enable_thinking": False},
    end_of_turn=("<|im_end|>",))`; a tokenizer with none of these set is used as it is.

    `template_options` are variables that the template reads.
    """

    chat_template: TemplatePath | None = None
    template_options: dict[str, Scalar] = Field(default_factory=dict)
    end_of_turn: Tokens = ()


AS_IT_IS = TemplateRecipe()
"""The tokenizer's own template."""
