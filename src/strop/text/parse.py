"""Token ids -> text, and text -> the parts a reward reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

from strop.types import Message, Text

_BRACES = re.compile(r"\\boxed[ \t]{0,9}\{|\\.|[{}]", re.DOTALL)
_THOUGHT = re.compile(r"(</?think>)")


def decode(tokenizer: Any, ids: Sequence[int], *, special: bool = False) -> str:
    """Text of ids, spaces untouched; special tokens are left out unless `special`."""
    text = tokenizer.decode(
        list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False
    )
    return cast(str, text)


def plain(text: Text) -> str:
    """The words of a prompt or completion: the text itself, or its messages joined by newlines."""
    return text if isinstance(text, str) else "\n".join(map(_content, text))


def written(completion: Text) -> str:
    """The words of a completion that the assistant wrote, thoughts among them; what tools and users
    said within it is left out."""
    return completion if isinstance(completion, str) else plain(_assistants(completion))


def spoken(completion: Text) -> str:
    """The visible words of the assistant, without tool results and thoughts.

    A thought is text between `<think>` and `</think>`, after a `<think>` that is never closed, or
    before a `</think>` that was opened in the prompt. Thoughts are left out even if nothing
    follows: `spoken("<think>5 or 6</think>6") == "6"`.
    """
    if isinstance(completion, str):
        return _without_thoughts(completion)
    return "\n".join(_without_thoughts(_content(turn)) for turn in _assistants(completion))


def last_tag(text: str, tag: str) -> str | None:
    """Content of the last complete `<tag>...</tag>`: `last_tag("<a>1</a><a>2</a>", "a") == "2"`.

    `None` if the last closing tag has no opening tag or closes nested tags: `<a><a>1</a>2</a>`
    could be read as two answers.
    """
    opening, closing = f"<{tag}>", f"</{tag}>"
    end = text.rfind(closing)
    start = text.rfind(opening, 0, max(end, 0))
    if start < 0:
        return None
    first = text.find(closing, start)
    return text[start + len(opening) : first].strip() if first == end else None


def last_boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{...}` with balanced braces (escaped ones aside), or `None`."""
    open_braces: list[int | None] = []
    begun, found = -1, None
    for brace in _BRACES.finditer(text):
        if brace[0] == "}":
            start = open_braces.pop() if open_braces else None
            if start is not None and start > begun:
                begun, found = start, text[start : brace.start()].strip()
        elif brace[0].endswith("{") and brace[0] != "\\{":
            open_braces.append(brace.end() if len(brace[0]) > 1 else None)
    return found


def _assistants(messages: Sequence[Message]) -> list[Message]:
    return [message for message in messages if message.get("role", "assistant") == "assistant"]


def _content(message: Message) -> str:
    """A message's words; content may also be a list of parts (`[{"type": "text", "text":
    ...}]`)."""
    content = message.get("content") or ""
    if not isinstance(content, list):
        return str(content)
    return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))


def _without_thoughts(text: str) -> str:
    kept: list[str] = []
    thinking = False
    for part in _THOUGHT.split(text):
        if part == "<think>":
            thinking = True
        elif part == "</think>":
            kept = kept if thinking else []
            thinking = False
        elif not thinking:
            kept.append(part)
    return "".join(kept)
