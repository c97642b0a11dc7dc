"""Token ids -> text, and text -> the parts a reward reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

from strop.types import Text

_BOXED = re.compile(r"\\boxed\s*\{")


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """Text of sampled ids, special tokens left out, spaces untouched."""
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return cast(str, text)


def plain(text: Text) -> str:
    """The words of a prompt or completion: the text itself, or its messages joined by newlines."""
    if isinstance(text, str):
        return text
    return "\n".join(str(message.get("content") or "") for message in text)


def last_tag(text: str, tag: str) -> str | None:
    """Content of the last complete `<tag>...</tag>`: `last_tag("<a>1</a><a>2</a>", "a") == "2"`."""
    pattern = rf"<{re.escape(tag)}>((?:(?!<{re.escape(tag)}>).)*?)</{re.escape(tag)}>"
    found = re.findall(pattern, text, flags=re.DOTALL)
    return cast(str, found[-1]).strip() if found else None


def last_boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{...}` with balanced braces, or `None`."""
    starts = [match.end() for match in _BOXED.finditer(text)]
    if not starts:
        return None
    depth = 1
    for end in range(starts[-1], len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[starts[-1] : end].strip()
    return None
