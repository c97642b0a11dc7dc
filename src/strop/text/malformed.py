"""Says to a model why what looks like a call of a tool is none, so that it can write it again."""

from __future__ import annotations

import json
import re
from typing import Any

from strop.text.chat.template import Tools
from strop.text.tools import (
    NAMES,
    begins_bare,
    calls_in,
    first_mark,
    read_json,
    tool_names,
    unwritable,
    without_ends,
)

FORM = 'an object with a "name" and its "arguments", which are an object too'
CLOSED = {"<tool_call>": "</tool_call>", "<|tool_call_start|>": "<|tool_call_end|>"}
"""What closes a mark, where something has to."""
SNIPPET = 60
"""Characters of the model's own words that are repeated to it."""

_FENCE = re.compile(r"\s*```(?:json|python)?[ \t]*\n")
_OBJECT = re.compile(r'\s*\[?\s*\{\s*"(?:name|function|arguments|parameters)"\s*:')
_FUNCTION = re.compile(r"\s*\[?\s*([\w.-]+)\(")
_TAG = re.compile(r"<(function|parameter)=[^>\n]*>|</(function|parameter)>")


def why_no_call(text: str, tools: Tools) -> str:
    """Why a text that begins like a call is none; empty for valid calls and for other text.

    `why_no_call('<tool_call>{"name": "add"', tools)` is "`<tool_call>` is never closed by
    `</tool_call>`". Without a mark, a text begins like a call if it is an object that names one, or
    the name of one of `tools` with a parenthesis.
    """
    if not tools or calls_in(text, tools) is not None:
        return ""
    text = without_ends(text)
    mark = first_mark(text)
    if mark is None or begins_bare(text, mark):
        bare = _FENCE.sub("", text, count=1)
        if _looks_bare(bare, tools):
            return _why_bare(bare)
    if mark is None:
        return ""
    for part in text.split(mark)[1:]:
        inside, closed, _ = part.partition(CLOSED.get(mark, "\0"))
        if mark in CLOSED and not closed:
            return f"`{mark}` is never closed by `{CLOSED[mark]}`"
        if calls_in(mark + inside + closed, tools) is None:
            return _why_inside(mark, inside)
    return f"`{mark}` is followed by no call"


def _looks_bare(text: str, tools: Tools) -> bool:
    function = _FUNCTION.match(text)
    return bool(_OBJECT.match(text)) or (function is not None and function[1] in tool_names(tools))


def _why_inside(mark: str, inside: str) -> str:
    if mark == "to=functions.":
        return _why_json(inside.partition("<|message|>")[2].partition("<|call|>")[0], whole=False)
    if "[ARGS]" in inside:
        return _why_json(inside.partition("[ARGS]")[2], whole=False)
    if mark == "<tool_call>" and _TAG.search(inside):
        return _why_tags(inside)
    if "<arg_key>" in inside:
        return (
            "every argument is `<arg_key>name</arg_key>` and `<arg_value>value</arg_value>`, once"
        )
    return _why_bare(inside)


def _why_bare(text: str) -> str:
    if _FUNCTION.match(text):
        return (
            "write it as `function(name=value)`, every argument with its name, given once, and "
            f"with a literal value: {_snippet(text)}"
        )
    return _why_json(text, whole=True)


def _why_json(text: str, *, whole: bool) -> str:
    """Why it is not the JSON of a call (`whole`), or of its arguments."""
    if not text.strip():
        return f"nothing stands where {FORM if whole else 'the arguments'} should"
    try:
        value = read_json(text)
    except json.JSONDecodeError as error:
        return f"its JSON is broken: {error.msg} at {_snippet(text[error.pos :]) or 'its end'}"
    except (ValueError, RecursionError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        return f"its JSON cannot be read: {what}"
    if problem := unwritable(value):
        return f"its JSON cannot be used: {problem}"
    if not whole:
        return "its arguments are no JSON object"
    values = value if isinstance(value, list) else [value]
    return next((why for one in values if (why := _why_object(one))), f"it has to be {FORM}")


def _why_object(value: Any) -> str:
    function = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(function, dict):
        return f"it has to be {FORM}: {_snippet(json.dumps(value))}"
    if not isinstance(function.get("name"), str):
        return 'it has no "name" that says which tool is called'
    if further := sorted(function.keys() - NAMES):
        return f'beside "name" and "arguments" it has {", ".join(map(repr, further))}'
    return 'its "arguments" are no object'


def _why_tags(text: str) -> str:
    opened: list[str] = []
    for tag in _TAG.finditer(text):
        if tag[1]:
            opened.append(tag[1])
        elif not opened or opened.pop() != tag[2]:
            return f"`</{tag[2]}>` closes nothing"
    if opened:
        return f"`<{opened[-1]}=...>` is never closed by `</{opened[-1]}>`"
    return (
        "it has to be `<function=name>` with every argument once, as "
        "`<parameter=name>value</parameter>`, and `</function>`, and nothing else"
    )


def _snippet(text: str) -> str:
    shown = " ".join(text.split())
    return f"`{shown[:SNIPPET]}{'...' if len(shown) > SNIPPET else ''}`" if shown else ""
