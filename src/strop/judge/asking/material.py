"""What a judge is shown, made safe to show: fenced by a mark nobody could know, without tags that a
chat template would obey."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from strop.files import sha256_hex

MARK = 10
"""Hex digits of the mark: one text in 10^12 holds a given one by chance."""

TAGS = re.compile(
    r"<(?=\|[^<>|\n]{1,60}\|>)"  # <|im_start|>, <|eot_id|>, ...
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])"
    r"|<(?=<SYS>>|</SYS>>|/?s>|/?bos>|/?eos>|(?:start|end)_of_turn>|\uff5c[^<>\n]{1,60}\uff5c>)",
    re.IGNORECASE,
)
"""The first character of a tag by which chat templates tell turns apart."""


@dataclass(frozen=True, slots=True)
class Material:
    """`Material(mark="9f86d08188", texts=("Name a river.", "The Rhine."))`: texts as they may stand
    in a judge's prompt, and the mark that begins and ends each of them."""

    mark: str
    texts: tuple[str, ...]


def material(texts: Sequence[str], secret: str) -> Material:
    """The texts with their tags broken, and a mark that is in none of them.

    The mark is a hash of the secret and the texts, so the same question is asked in the same words
    (an answer can be kept), and no author of a text can write its end: whoever changes the text
    changes the mark. A tag is broken by a space after its first character, `< |im_end|>`, which a
    reader still understands and a tokenizer does not obey.
    """
    safe = tuple(TAGS.sub(lambda found: f"{found[0]} ", text) for text in texts)
    for attempt in count():
        mark = sha256_hex("\0".join((secret, str(attempt), *safe)), MARK)
        if not any(mark in text for text in safe):
            return Material(mark, safe)
    raise AssertionError("unreachable")
