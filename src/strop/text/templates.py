"""Prompts in words of one's own: template files that strop or a user wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from strop.errors import RecipeError
from strop.files import SHORT, read_text, sha256_hex
from strop.types import Text

MOST_BYTES = 1 << 18
"""A longer template was not written by hand."""

_JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """`PromptTemplate("critique", path, text="Somebody asked ...", sha256="9f86d081884c7d65")`;
    `sha256` are the first digits of the hash of its text."""

    name: str
    path: str
    text: str
    sha256: str

    def render(self, **values: Any) -> str:
        """The words for these values. Raises `RecipeError` where the template cannot be filled."""
        try:
            return _JINJA.from_string(self.text).render(**values).strip()
        except TemplateError as error:
            raise RecipeError(f"the template cannot be filled: {error}", where=self.path,
                              fix="mend the template") from None  # fmt: skip

    def around(self, prompt: Text) -> Text:
        """A prompt in the template's words: a text, or a conversation whose last turn of the user
        is worded anew."""
        if isinstance(prompt, str):
            return self.render(prompt=prompt)
        last = max((n for n, turn in enumerate(prompt) if turn["role"] == "user"), default=None)
        if last is None:
            return prompt
        worded = {**prompt[last], "content": self.render(prompt=prompt[last].get("content") or "")}
        return [*prompt[:last], worded, *prompt[last + 1 :]]


def read_template(
    name: str, path: Path, *, needed: Sequence[str], given: Sequence[str]
) -> PromptTemplate:
    """The template in a file, which may show what it is `given` and has to show what is `needed`.

    Raises `RecipeError` for a file that is no template, shows something that is not there, or does
    not show what an answer cannot do without.
    """
    text = read_text(path, RecipeError, limit=MOST_BYTES)
    try:
        shown = meta.find_undeclared_variables(_JINJA.parse(text))
    except TemplateSyntaxError as error:
        raise RecipeError(
            f"the template cannot be read: {error.message}",
            where=f"{path}:{error.lineno}",
            fix="mend the braces",
        ) from None
    for unknown in sorted(shown - set(given)):
        raise RecipeError(f"the template shows {{{{ {unknown} }}}}, which it is not given",
                          where=_line(path, text, unknown),
                          fix=f"it is given {', '.join(given)}")  # fmt: skip
    for missing in (word for word in needed if word not in shown):
        raise RecipeError(f"the template does not show {{{{ {missing} }}}}", where=str(path),
                          fix="write it where it belongs")  # fmt: skip
    return PromptTemplate(name, str(path), text, sha256_hex(text, SHORT))


def _line(path: Path, text: str, word: str) -> str:
    """The first line of the template that names this word."""
    lines = text.splitlines()
    return f"{path}:{next((n for n, line in enumerate(lines, 1) if word in line), 1)}"


def conversation(prompt: Text) -> str:
    """A prompt as a template shows it: the only turn's words, or every turn behind its role."""
    if isinstance(prompt, str):
        return prompt
    turns = [(str(turn["role"]), str(turn.get("content") or "")) for turn in prompt]
    if len(turns) == 1:
        return turns[0][1]
    return "\n\n".join(f"{role.capitalize()}: {content}" for role, content in turns)
