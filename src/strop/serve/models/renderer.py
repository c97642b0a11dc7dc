"""Prompts as a model reads them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from strop.engines.engine import PromptedTask
from strop.text.chat.template import Tools
from strop.text.encode import Encoder
from strop.text.render import opening, prompt_of
from strop.types import Origin, Task, Text

REMEMBERED = 1 << 22
"""Characters of prompts that are kept rendered; then all are forgotten."""

ASKED = Origin("request", 0)


class Renderer:
    """Writes prompts with one tokenizer. Raises `TextError` for messages that its chat template
    cannot write, or where it has none."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._encoder = Encoder(tokenizer)
        self._held = 0

    @cached_property
    def special(self) -> dict[int, str]:
        """Tokens that are no text of their own, by id; asked of the tokenizer once."""
        ids = self.tokenizer.all_special_ids
        return dict(zip(ids, self.tokenizer.convert_ids_to_tokens(ids), strict=True))

    @property
    def has_template(self) -> bool:
        return self.tokenizer.chat_template is not None

    def prompted(self, prompt: Text, tools: Tools, caller: str) -> PromptedTask:
        """A text or messages with their ids, and what they open of the answer. What is kept of a
        prompt is its caller's alone."""
        self._held += len(str(prompt))
        if self._held > REMEMBERED:
            self._encoder, self._held = Encoder(self.tokenizer), 0
        columns = {"tools": tools} if tools else {}
        task = Task(prompt, columns, ASKED)
        ids = prompt_of(self._encoder, task)
        return PromptedTask(task, ids, opening(self.tokenizer, prompt, ids), caller)

    def of_ids(self, ids: tuple[int, ...], caller: str) -> PromptedTask:
        """A prompt that came as ids; its task is the text that they spell."""
        text = str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))
        return PromptedTask(Task(text, {}, ASKED), ids, salt=caller)
