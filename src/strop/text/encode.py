"""Messages -> text -> token ids for one tokenizer, many texts at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from jinja2 import TemplateError

from strop.errors import TextError
from strop.types import Message

Tokenizer = Any
"""A transformers `PreTrainedTokenizerBase` (the library ships no types)."""

TEMPLATE_ERRORS = (
    TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError,
    RecursionError,
)  # fmt: skip
"""A template is a program of its own: it fails in every way that an expression can."""

AT_ONCE = 1 << 20
"""Characters in one call of the tokenizer (a single longer text is a call of its own)."""


class Encoder:
    """What one tokenizer makes of messages and texts; texts and prompts that repeat are looked up.

    `encode` tokenises ahead, in batches, what `ids` will be asked for.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.eos: int = tokenizer.eos_token_id
        self._prompts: dict[str, str] = {}
        self._ids: dict[bool, dict[str, tuple[int, ...]]] = {False: {}, True: {}}

    def prompt(self, messages: list[Message], where: str) -> str:
        """Messages up to where the assistant speaks next."""
        key = repr(messages)
        if key not in self._prompts:
            self._prompts[key] = self.template(messages, generation=True, where=where)
        return self._prompts[key]

    def template(self, messages: list[Message], *, generation: bool, where: str) -> str:
        """Messages through the chat template; `TextError` where the tokenizer has none."""
        if self.tokenizer.chat_template is None:
            raise TextError(
                "the data holds chat messages but the tokenizer has no chat template",
                where=where,
                fix="use plain text prompts and completions, or a tokenizer with a chat_template",
            )
        try:
            rendered = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generation
            )
        except TEMPLATE_ERRORS as error:
            said = str(error).split("\n")[0][:300]
            raise TextError(
                f"the chat template cannot render these messages: {said}",
                where=where,
                fix="mend the record (roles, their order, tool calls), or the tokenizer's template",
            ) from None
        return cast(str, rendered)

    def encode(self, texts: Iterable[str], *, special: bool) -> None:
        """Tokenise ahead. A text that cannot be is left for `ids` to refuse."""
        known = self._ids[special]
        for run in _runs(text for text in dict.fromkeys(texts) if text not in known):
            try:
                self._learn(run, special)
            except (TypeError, ValueError):
                return

    def ids(self, text: str, *, special: bool, where: str = "") -> tuple[int, ...]:
        """Ids of a text; `special` puts the tokenizer's own BOS before it (once) and no EOS after
        it. Raises `TextError` for half of a surrogate pair, which no tokenizer takes."""
        if text not in self._ids[special]:
            try:
                self._learn([text], special)
            except (TypeError, UnicodeEncodeError):
                raise TextError(
                    "the text holds half of a surrogate pair, which is no character",
                    where=where or None,
                    fix="write the character whole, or drop the record",
                ) from None
        return self._ids[special][text]

    def _learn(self, texts: list[str], special: bool) -> None:
        found = self.tokenizer(
            texts,
            add_special_tokens=special,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        for text, ids in zip(texts, found, strict=True):
            self._ids[special][text] = tuple(self._opened(text, ids) if special else ids)

    def _opened(self, text: str, ids: list[int]) -> list[int]:
        """Without a second BOS and without a closing EOS that the text does not hold."""
        bos = self.tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            ids = ids[1:]
        if len(ids) > 1 and ids[-1] == self.eos:
            return ids if text.endswith(str(self.tokenizer.eos_token)) else ids[:-1]
        return ids


def _runs(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in runs of at most `AT_ONCE` characters."""
    run: list[str] = []
    size = 0
    for text in texts:
        if run and size + len(text) > AT_ONCE:
            yield run
            run, size = [], 0
        run.append(text)
        size += len(text)
    if run:
        yield run
