"""Rows of the log without the personal data in them."""

from __future__ import annotations

from typing import Any, Literal

from strop.curate.clean.personal.replace import replace

Policy = Literal["replace", "drop", "keep"]

WORDS = ("messages", "tools", "answer", "answers", "edit", "comment", "explanation", "metadata")
"""Fields of a row that hold what people and the model wrote."""

EXACT = ("token_ids", "prompt_token_ids", "logprobs")
"""Fields that hold the same words once more, as tokens."""


def cleared(row: dict[str, Any], policy: Policy) -> dict[str, Any] | None:
    """The row as it may be kept; `None` where nothing of it may.

    With `replace` a row in which something was found has placeholders, and no token ids any more:
    they would spell it.
    """
    if policy == "keep":
        return row
    words = {name: row[name] for name in WORDS if row.get(name) is not None}
    found = replace(words)
    if not found.counts:
        return row
    if policy == "drop":
        return None
    rest = {name: value for name, value in row.items() if name not in EXACT}
    return {**rest, **found.record, "personal_data": dict(found.counts)}
