"""Nested plain values as one row of dotted keys, the names that `--set` uses."""

from __future__ import annotations

from typing import Any


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """`flat({"optim": {"lr": 1}, "data": ["a"]})` is `{"optim.lr": 1, "data.0": "a"}`."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, item in items:
        found |= flat(item, f"{prefix}.{key}" if prefix else str(key))
    return found
