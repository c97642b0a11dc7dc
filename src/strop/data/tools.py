"""A `tools` column: what an assistant may call, in every form that users have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strop.data.json_text import parsed
from strop.data.messages import without_nulls
from strop.errors import DataError
from strop.recipe.loading.yaml_text import shown
from strop.types import Origin

FIX = 'write [{"type": "function", "function": {"name": ..., "parameters": {...}}}]'


def tools_of(value: Any, name: str, origin: Origin) -> list[dict[str, Any]]:
    """A list of tools, or the JSON text of one, as a list of objects; `[]` where there are none.

    A tool is OpenAI's `{"type": "function", "function": {"name": ...}}` or the bare
    `{"name": ..., "parameters": ...}`. Keys that are null in a list are left out: Arrow adds them.
    A text keeps its nulls.
    """
    if value is None or value in ("", []):
        return []
    is_text = isinstance(value, str)
    listed = parsed(value, f"{origin}: `{name}`", fix=FIX) if is_text else without_nulls(value)
    if not isinstance(listed, list):
        raise DataError(f"`{name}` is no list of tools (it is {shown(listed)})", where=str(origin),
                        fix=f"{FIX}, or its JSON text")  # fmt: skip
    for number, tool in enumerate(listed):
        _expect_tool(tool, f"{name}[{number}]", origin)
    return listed


def _expect_tool(tool: Any, place: str, origin: Origin) -> None:
    inner = tool.get("function", tool) if isinstance(tool, Mapping) else None
    named = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(named, str) or not named:
        raise DataError(f"`{place}` is no function with a name (it is {shown(tool)})",
                        where=str(origin), fix=FIX)  # fmt: skip
