"""Replaces the tokenizer's chat template: by a file, by one of strop's, or with variables set."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.errors import UsageError
from strop.files import read_text
from strop.recipe.template import Scalar, TemplateRecipe
from strop.text.ends import set_end_of_turn


@dataclass(frozen=True, slots=True)
class NamedTemplate:
    """A template, the special tokens it writes, and which of them ends a turn."""

    source: str
    tokens: tuple[str, ...]
    end_of_turn: str


NAMED: Mapping[str, NamedTemplate] = {
    "chatml": NamedTemplate(
        "{%- for message in messages %}"
        "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
        "{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
        ("<|im_start|>", "<|im_end|>"),
        "<|im_end|>",
    ),
}
"""Templates for models that have none, by their names in recipes."""


def with_template(tokenizer: Any, recipe: TemplateRecipe) -> Any:
    """The tokenizer with the recipe's chat template; a saved copy keeps it.

    A named template adds the tokens it needs. Raises `UsageError` for an unknown name, a file that
    cannot be read, options without a template, and a token that the tokenizer does not know.
    """
    if recipe.chat_template is not None:
        _replace(tokenizer, recipe.chat_template)
    if recipe.template_options:
        _bake(tokenizer, recipe.template_options)
    if recipe.end_of_turn:
        for token in recipe.end_of_turn:
            _expect_token(tokenizer, token)
        set_end_of_turn(tokenizer, recipe.end_of_turn)
    return tokenizer


def _replace(tokenizer: Any, given: str) -> None:
    if given in NAMED:
        named = NAMED[given]
        missing = [token for token in named.tokens if token not in tokenizer.get_vocab()]
        if missing:
            tokenizer.add_special_tokens({"extra_special_tokens": missing}, False)
        tokenizer.chat_template = named.source
        set_end_of_turn(tokenizer, [named.end_of_turn])
        return
    file = Path(given)
    if not file.is_file():
        raise UsageError(
            f"chat_template is {given!r}, which is neither a file nor the name of a template",
            fix=f"give a Jinja file, or one of: {', '.join(NAMED)}",
        )
    tokenizer.chat_template = read_text(file, UsageError)


def _bake(tokenizer: Any, options: Mapping[str, Scalar]) -> None:
    """Set variables at the head of the template itself, so that they are saved with it."""
    if not isinstance(tokenizer.chat_template, str):
        raise UsageError(
            "template_options are set but the tokenizer has no single chat template to read them",
            fix="set chat_template as well, or drop template_options",
        )
    given = {"messages", "tools", "documents", "add_generation_prompt"}
    taken = [name for name in options if name in given | tokenizer.special_tokens_map.keys()]
    if taken:
        raise UsageError(
            f"template_options sets {taken[0]!r}, which every conversation sets by itself",
            fix="drop it",
        )
    unread = [name for name in options if not _reads(tokenizer.chat_template, name)]
    if unread:
        raise UsageError(
            f"template_options sets {unread[0]!r}, which the chat template never reads",
            fix="drop it, or write the name as the template does",
        )
    head = "".join(
        f"{{%- if {name} is not defined %}}{{%- set {name} = {_literal(value)} %}}{{%- endif +%}}"
        for name, value in options.items()
    )
    tokenizer.chat_template = head + tokenizer.chat_template


def _literal(value: Scalar) -> str:
    """A value in Jinja's syntax, which differs from JSON's only in null."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _reads(template: str, name: str) -> bool:
    return name.isidentifier() and re.search(rf"\b{name}\b", template) is not None


def _expect_token(tokenizer: Any, token: str) -> None:
    if token not in tokenizer.get_vocab():
        raise UsageError(
            f"text.end_of_turn is {token!r}, which is no single token of the tokenizer",
            fix="write the token exactly as the chat template does",
        )
