"""Encodes messages and texts as token ids with one tokenizer, many texts at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from strop.errors import TextError
from strop.text.chat.template import ChatTemplate, Tools
from strop.text.ends import appended_end, ends_of
from strop.text.runs import runs
from strop.types import Message

Tokenizer = Any
"""A transformers `PreTrainedTokenizerBase` (the library ships no types)."""

AT_ONCE = 1 << 20
"""Characters in one call of the tokenizer (a single longer text is a call of its own)."""


class Encoder:
    """Renders and tokenises with one tokenizer; repeated texts and prompts are cached.

    `encode` tokenises texts in batches before `ids` needs them.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.chat = ChatTemplate(tokenizer)
        self.eos: int = tokenizer.eos_token_id
        self.ends = ends_of(tokenizer)
        self.appended = appended_end(tokenizer)
        self._prompts: dict[str, str] = {}
        self._ids: dict[bool, dict[str, tuple[int, ...]]] = {False: {}, True: {}}

    def prompt(self, messages: list[Message], tools: Tools, where: str) -> str:
        """Messages as text, up to the start or continuation of the assistant's turn."""
        key = repr((messages, tools))
        if key not in self._prompts:
            continued = messages[-1]["role"] == "assistant"
            self._prompts[key] = self.chat.write(
                messages, tools, generation=not continued, continued=continued, where=where
            )
        return self._prompts[key]

    def through_end(self, text: str) -> str:
        """A text up to and including the first token that ends an answer; `""` without one."""
        tokens = self.tokenizer.convert_ids_to_tokens(list(self.ends))
        stops = [text.find(token) + len(token) for token in tokens if token in text]
        return text[: min(stops)] if stops else ""

    def encode(self, texts: Iterable[str], *, special: bool) -> None:
        """Tokenise ahead. A text that cannot be tokenised is skipped here; `ids` raises for it."""
        known = self._ids[special]
        unknown = (text for text in dict.fromkeys(texts) if text not in known)
        for run in runs(unknown, AT_ONCE):
            try:
                self._learn(run, special)
            except (TypeError, ValueError):
                return

    def ids(self, text: str, *, special: bool, where: str = "") -> tuple[int, ...]:
        """Ids of a text; with `special` the tokenizer's own BOS comes first (once), and no EOS
        follows. Raises `TextError` for half of a surrogate pair, which no tokenizer accepts."""
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
        """Remove a second BOS, and a closing EOS that is not in the text."""
        bos = self.tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            ids = ids[1:]
        if len(ids) > 1 and ids[-1] == self.eos:
            return ids if text.endswith(str(self.tokenizer.eos_token)) else ids[:-1]
        return ids
