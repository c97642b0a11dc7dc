"""Format rewards: is the answer where a reader (and a parser) expects it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from strop.text.parse import plain
from strop.types import Text


def format_tags(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    tags: Sequence[str] = ("answer",),
    **columns: object,
) -> list[float | None]:
    """Share of `tags` that appear exactly once, opened before closed, with something between.

    1.0 for `...<answer>5</answer>`; 0.0 for a missing, repeated, unclosed or empty tag.
    """
    texts = [plain(completion) for completion in completions]
    return [sum(_well_formed(text, tag) for tag in tags) / len(tags) for text in texts]


def _well_formed(text: str, tag: str) -> bool:
    opening, closing = f"<{tag}>", f"</{tag}>"
    once = text.count(opening) == 1 and text.count(closing) == 1
    return once and bool(re.search(f"{re.escape(opening)}.*\\S.*{re.escape(closing)}", text, re.S))
