"""Renders messages with a tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from strop.errors import TextError
from strop.text.chat.clock import dated, today
from strop.text.chat.messages import Form, formed
from strop.types import Message

TEMPLATE_ERRORS = (
    TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError,
    RecursionError,
)  # fmt: skip
"""Errors of templates: a template is a program, so any expression in it may fail."""

SENTINEL = "Stropsentinel"
"""A word that no template writes by itself: if it is in the output, the template read the field
that it replaced. It is one capitalised word without white space, so that trimming and capitalising
do not change it."""

Tools = Sequence[dict[str, Any]] | None
"""The tools of a prompt, as JSON schemas."""


class ChatTemplate:
    """The chat template of a tokenizer, with the day of `strop.text.chat.clock`.

    It gets messages in the form that it reads (`form`): templates differ in the form of a call's
    arguments, of the content of a turn without words, and of content in general.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.day = today()
        self.known_to_read: set[Any] = set()

    def write(
        self,
        messages: Sequence[Message],
        tools: Tools = None,
        *,
        generation: bool = False,
        continued: bool = False,
        where: str = "",
    ) -> str:
        """The conversation as text; with `generation` up to the start of the assistant's next turn,
        with `continued` up to the point where its last message continues. Raises `TextError`."""
        self._expect_template(where)
        ready = formed(messages, self.form, where)
        try:
            return self.render(ready, tools, generation=generation, continued=continued)
        except TEMPLATE_ERRORS as error:
            raise TextError(
                f"the chat template cannot render these messages: {first_line(error)}",
                where=where,
                fix="mend the record (roles, their order, tool calls), or the tokenizer's template",
            ) from None

    def render(
        self,
        messages: Sequence[Message],
        tools: Tools = None,
        *,
        generation: bool = False,
        continued: bool = False,
    ) -> str:
        """Render messages that are already in the template's form; raises one of
        `TEMPLATE_ERRORS`."""
        source = self.tokenizer.get_chat_template(None, tools or None)
        (text,), _ = render_jinja_template(
            conversations=[list(messages)],
            tools=list(tools) if tools else None,
            chat_template=dated(source, self.day),
            add_generation_prompt=generation,
            continue_final_message=continued,
            **self.tokenizer.special_tokens_map,
        )
        return str(text)

    @cached_property
    def form(self) -> Form:
        """The first form in which the template writes everything."""
        parts = not self._writes([_asks(SENTINEL)]) and self._writes([_asks(_part(SENTINEL))])
        absents: tuple[str | None, ...] = (None, "")
        forms = [Form(parts, absent, text) for text in (False, True) for absent in absents]
        return next((form for form in forms if self._writes_call(form)), forms[0])

    @cached_property
    def closing(self) -> str:
        """The text that the template writes after an assistant's last word: `"<|im_end|>\\n"`."""
        turns = [_asks("?"), {"role": "assistant", "content": SENTINEL}]
        try:
            text = self.render(formed(turns, self.form, ""))
        except TEMPLATE_ERRORS:
            return ""
        return text.rpartition(SENTINEL)[2]

    @cached_property
    def shows_tools(self) -> bool:
        """Whether it writes the names of tools."""
        function = {"name": SENTINEL, "description": "", "parameters": {"type": "object"}}
        try:
            text = self.render([_asks("?")], [{"type": "function", "function": function}])
        except TEMPLATE_ERRORS:
            return False
        return SENTINEL in text

    @cached_property
    def reads_thoughts(self) -> bool:
        """Whether it writes the `reasoning_content` of the last turn."""
        turn = {"role": "assistant", "content": "?", "reasoning_content": SENTINEL}
        return self._writes(formed([_asks("?"), turn], self.form, ""))

    def _writes(self, messages: Sequence[Message]) -> bool:
        try:
            return SENTINEL in self.render(messages)
        except TEMPLATE_ERRORS:
            return False

    def _writes_call(self, form: Form) -> bool:
        """Whether a turn that only calls a tool is written completely, and without the word
        None."""
        call = {"name": f"{SENTINEL}F", "arguments": {"x": f"{SENTINEL}X"}}
        calls = [{"id": "abcdefghi", "type": "function", "function": call}]
        turns = [_asks("?"), {"role": "assistant", "content": None, "tool_calls": calls}]
        try:
            text = self.render(formed(turns, form, ""))
        except TEMPLATE_ERRORS:
            return False
        return f"{SENTINEL}F" in text and f"{SENTINEL}X" in text and "None" not in text

    def _expect_template(self, where: str) -> None:
        if self.tokenizer.chat_template is None:
            raise TextError(
                "the data holds chat messages but the tokenizer has no chat template",
                where=where,
                fix="set chat_template in the recipe (a file, or chatml), use plain text prompts "
                "and completions, or use a tokenizer with a chat_template",
            )


def first_line(error: Exception) -> str:
    """The first line of a template's error."""
    return str(error).split("\n")[0][:300]


def _asks(content: Any) -> Message:
    return {"role": "user", "content": content}


def _part(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]
