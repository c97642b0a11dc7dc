"""Tokens as they come -> text that can be shown, in parts.

The bytes of a character that is not whole are held back; what else is, is said in
`strop.text.speech`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from strop.text.chat.template import Tools
from strop.text.speech import Delta, Speech, Written
from strop.text.tools import Call


class Detokenizer:
    """Turns ids into text as they come.

    Only the last few ids are decoded again, so that time is linear: those from which on the text is
    the same whatever stands before.
    """

    def __init__(self, tokenizer: Any, hidden: frozenset[int], ends: frozenset[int]) -> None:
        self._tokenizer, self._hidden, self._ends = tokenizer, hidden, ends
        self._ids: list[int] = []
        self._before = self._read = 0

    def feed(self, ids: Sequence[int], *, last: bool = False) -> str:
        """The text that these ids add."""
        self._ids += [i for i in ids if i not in self._hidden and i not in self._ends]
        known = self._decode(self._ids[self._before : self._read])
        whole = self._decode(self._ids[self._before :])
        if not last and (whole.endswith("\ufffd") or len(whole) <= len(known)):
            return ""
        self._before, self._read = self._read, len(self._ids)
        return whole[len(known) :]

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        ))  # fmt: skip


class Speaker:
    """One answer as its tokens come, with the `stop`, `tools` and `opened` of `Speech`."""

    def __init__(
        self,
        detokenizer: Detokenizer,
        stop: Sequence[str] = (),
        tools: Tools = None,
        opened: str = "",
    ) -> None:
        self.detokenizer, self.speech = detokenizer, Speech(stop, tools, opened)

    def feed(self, ids: Sequence[int]) -> list[Delta]:
        return self.speech.feed(self.detokenizer.feed(ids))

    def end(self) -> list[Delta]:
        return self.speech.end(self.detokenizer.feed((), last=True))

    @property
    def written(self) -> Written:
        return self.speech.written


def called(call: Call, place: int, id_: str) -> dict[str, Any]:
    """A call in OpenAI's form."""
    arguments: Mapping[str, Any] = call.arguments
    written = {"name": call.name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"index": place, "id": id_, "type": "function", "function": written}
