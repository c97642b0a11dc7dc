"""Parses tool calls in the syntaxes of the model families.

| family | how a call is written |
|---|---|
| Hermes, Qwen 2.5, Qwen 3 | `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` |
| Qwen 3.5, Qwen Coder, Nemotron | `<tool_call><function=f><parameter=x>1</parameter></function></tool_call>` |
| GLM | `<tool_call>f<arg_key>x</arg_key><arg_value>1</arg_value></tool_call>` |
| Llama 3 | `{"name": ..., "parameters": {...}}`, several with `;` between, maybe after `<|python_tag|>` |
| Mistral | `[TOOL_CALLS][{"name": ..., "arguments": {...}}]`, or `[TOOL_CALLS]f[ARGS]{...}` for each |
| pythonic (Llama 4, LFM 2) | `[f(x=1), g(y="a")]`, maybe in `<|tool_call_start|>`, `<|tool_call_end|>` |
| gpt-oss | ` to=functions.f<|channel|>commentary json<|message|>{...}<|call|>` |

A key or argument that is given twice, a tag that is left open, or a value that JSON cannot express
is no call. Marks inside the strings of a JSON call are part of the strings.
"""  # noqa: E501 - a table's line

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from strop.text.chat.template import Tools

BARE = ("{", "[", "```")
"""How a call begins in syntaxes without a mark of their own."""
DEEPEST = 100
"""Lists and objects inside each other that an argument may have: checkers and templates, which
recurse, have limits of a few hundred."""

_FENCED = re.compile(r"```(?:json|python)?[ \t]*\n(.*?)```", re.DOTALL)
_NAME = re.compile(r"[\w.-]+")
_MISTRAL = re.compile(r"\s*([\w.-]+)\s*(?:\[CALL_ID\]\s*([\w-]*)\s*)?\[ARGS\]")
_ADDRESS = re.compile(r"([\w.-]+)(?:<\|channel\|>commentary)?(?: [ \w]*)?(?:<\|constrain\|>\w+)?")
_ENDS = ("eom_id", "eot_id", "im_end", "eot", "return", "end_of_text")
_REVERSED_ENDS = re.compile(
    "(?:"
    + "|".join(re.escape(end[::-1]) for end in (*(f"<|{e}|>" for e in _ENDS), "</s>"))
    + r"|\s)*"
)
"""Matched from the end of the text, so that the time is linear; a forward search would not be."""


@dataclass(frozen=True, slots=True)
class Call:
    """`Call("get_weather", {"city": "Bern"})`. `id` is what the syntax wrote, if it writes any
    (Mistral's does); calls are equal whatever theirs is."""

    name: str
    arguments: Mapping[str, Any]
    id: str = field(default="", compare=False)


def calls_in(text: str, tools: Tools = None) -> list[Call] | None:
    """The calls in a text, in any family's syntax; `None` if it has no valid calls.

    `calls_in('<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>')` is `[Call("f", {"x":
    1})]`. With `tools`, an argument that is declared as a string stays one if the syntax does not
    show types (Qwen 3.5, GLM).
    """
    text = without_ends(text)
    marked = first_mark(text)
    calls = None
    if marked is None or begins_bare(text, marked):
        calls = bare_calls(text)
    if calls is None and marked is not None:
        calls = _MARKED[marked](text, _declared(tools))
    if calls is None or any(unwritable([call.name, dict(call.arguments)]) for call in calls):
        return None
    return calls


def bare_calls(text: str) -> list[Call] | None:
    """The calls in a text without marks, or in its only fenced block."""
    fenced = _FENCED.findall(text)
    return _bare(fenced[0] if len(fenced) == 1 else text)


def first_mark(text: str) -> str | None:
    """The mark of a call that stands first in a text."""
    return min((mark for mark in MARKS if mark in text), key=text.find, default=None)


def begins_bare(text: str, mark: str) -> bool:
    """Whether a text begins like a call without a mark, so that the mark may be in its strings."""
    start = text.lstrip()
    return start.startswith(BARE) and not start.startswith(mark)


def unwritable(value: Any) -> str:
    """Why no JSON text says a value; empty if one does. Such a value would fail later, wherever it
    is written: in a template, in a request, between processes."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [part for whole in level if isinstance(whole, dict | list)
                 for part in (whole.values() if isinstance(whole, dict) else whole)]  # fmt: skip
    if level:
        return f"it is nested more than {DEEPEST} deep"
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        return "it holds half of a surrogate pair, which is no character"
    except ValueError:
        return "it holds a number that is too large"
    return ""


def without_ends(text: str) -> str:
    """Without tokens that end a turn."""
    ends = _REVERSED_ENDS.match(text[::-1])
    return text[: len(text) - (ends.end() if ends else 0)]


def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises `ValueError` if a key is given twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found


NAMES = {"name", "arguments", "parameters", "id", "type"}
"""The keys that an object of a call may have; an object with other keys (a person's name and age)
is no call."""


def listed_calls(values: Sequence[Any]) -> list[Call] | None:
    """Calls as objects: OpenAI's form, or name and arguments (or parameters) alone."""
    calls = []
    for value in values:
        function = value.get("function", value) if isinstance(value, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return None
        if not function.keys() <= NAMES:
            return None
        arguments = function.get("arguments", function.get("parameters", {}))
        if isinstance(arguments, str):
            arguments = _json(arguments or "{}")
        if not isinstance(arguments, dict):
            return None
        given = value.get("id")
        calls.append(Call(function["name"], arguments, given if isinstance(given, str) else ""))
    return calls or None


Declared = Mapping[str, Mapping[str, Any]]
"""The parameters of every offered tool."""


def _functions(tools: Tools) -> dict[str, Any]:
    """The JSON schema of the parameters of every tool, by its name."""
    functions = [tool.get("function", tool) for tool in tools or []]
    return {str(f.get("name")): f.get("parameters") for f in functions if isinstance(f, dict)}


def tool_names(tools: Tools) -> list[str]:
    """The names of tools, in their order."""
    return list(_functions(tools))


def _declared(tools: Tools) -> Declared:
    return {
        name: schema["properties"]
        for name, schema in _functions(tools).items()
        if isinstance(schema, dict) and isinstance(schema.get("properties"), dict)
    }


def _tagged(text: str, declared: Declared) -> list[Call] | None:
    """The content of every `<tool_call>`; `None` if one is left open or holds no valid call."""
    calls: list[Call] = []
    _, opened, rest = text.partition("<tool_call>")
    while opened:
        inside = _leading(rest)
        if inside is None:
            said, closed, rest = rest.partition("</tool_call>")
            found = _inside(said, declared)
        else:  # to the end of the JSON, whose strings may hold the mark
            said, closed, rest = rest[inside[1] :].partition("</tool_call>")
            found = None if said.strip() else _objects([inside[0]])
        if found is None or not closed:
            return None
        calls += found
        _, opened, rest = rest.partition("<tool_call>")
    return calls


def _inside(text: str, declared: Declared) -> list[Call] | None:
    function = text.strip()
    if function.startswith("<function=") and function.endswith("</function>"):
        head, _, body = function[len("<function=") : -len("</function>")].partition(">")
        pairs = _pairs(body, "<parameter=", ">", "</parameter>")
        lines = pairs and [(key, v.removeprefix("\n").removesuffix("\n")) for key, v in pairs]
        return _paired(head, lines, declared)
    name, opened, rest = text.partition("<arg_key>")
    if _NAME.fullmatch(name.strip()):
        pairs = _pairs(opened + rest, "<arg_key>", "</arg_key>", "</arg_value>")
        return _paired(name, pairs and _valued(pairs), declared)
    return _bare(text)


Pairs = Sequence[tuple[str, str]]


def _pairs(text: str, opening: str, between: str, closing: str) -> Pairs | None:
    """The texts before and after each `between`; `None` for a text that is not only pairs."""
    pairs = []
    rest = text.strip()
    while rest:
        key, found, after = rest.removeprefix(opening).partition(between)
        value, closed, after = after.partition(closing)
        if not (rest.startswith(opening) and found and closed):
            return None
        pairs.append((key, value))
        rest = after.lstrip()
    return pairs


def _valued(pairs: Pairs) -> Pairs | None:
    """Pairs whose values begin with `<arg_value>`, without it."""
    if not all(value.lstrip().startswith("<arg_value>") for _, value in pairs):
        return None
    return [(key, value.lstrip().removeprefix("<arg_value>")) for key, value in pairs]


def _paired(name: str, pairs: Pairs | None, declared: Declared) -> list[Call] | None:
    """A call from names and texts of its arguments."""
    name = name.strip()
    properties = declared.get(name, {})
    if pairs is None or any("\n" in key.strip() for key, _ in pairs):
        return None
    try:
        given = [(key.strip(), _typed(said, properties.get(key.strip()))) for key, said in pairs]
        return [Call(name, without_twins(given))]
    except ValueError:
        return None


def _typed(said: str, schema: Any) -> Any:
    """A value from text: parsed as JSON; the text itself if it is no JSON, or if it is declared as
    a string and not as what the JSON is."""
    value = _json(said)
    if value is None and said.strip() != "null":
        value = said
    types = _types(schema)
    for one in (PYTHON_WORDS.get(said.strip(), value), value):
        if _type(one) in types:
            return one
    return said if "string" in types else value


PYTHON_WORDS = {"True": True, "False": False, "None": None}
"""How templates that write values by Jinja's `string` write these (Qwen 3 Coder)."""


def _types(schema: Any) -> set[str]:
    """The JSON types of the values that a schema allows; empty where it does not say."""
    if not isinstance(schema, dict):
        return set()
    named = schema.get("type")
    types = {named} if isinstance(named, str) else set(map(str, _list(named)))
    if not types:
        types = {_type(value) for value in _list(schema.get("enum"))}
    for one in (*_list(schema.get("anyOf")), *_list(schema.get("oneOf"))):
        types |= _types(one)
    if "number" in types:
        types.add("integer")
    if types and schema.get("nullable") is True:
        types.add("null")
    return types


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _type(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "null" if value is None else "boolean"
    names = {str: "string", int: "integer", float: "number", list: "array", dict: "object"}
    return names[type(value)]


def _mistral(text: str, declared: Declared) -> list[Call] | None:
    """Calls up to the end: `[TOOL_CALLS]` before each, or before a list of them."""
    calls: list[Call] = []
    rest = text.partition("[TOOL_CALLS]")[2]
    while True:
        head = _MISTRAL.match(rest)
        value = _leading(rest, head.end() if head else 0)
        if value is None:
            return None
        given, end = value
        found = (
            listed_calls([{"name": head[1], "arguments": given, "id": head[2]}])
            if head
            else _objects([given])
        )
        if found is None:
            return None
        calls += found
        after = rest[end:].strip()
        rest = after.removeprefix("[TOOL_CALLS]")
        if not after:
            return calls
        if rest == after:
            return None


def _python_tag(text: str, declared: Declared) -> list[Call] | None:
    return _bare(text.split("<|python_tag|>", 1)[1])


def _between(text: str, declared: Declared) -> list[Call] | None:
    """The calls between all pairs of marks; `None` if one is left open or holds no valid call."""
    calls: list[Call] = []
    for part in text.split("<|tool_call_start|>")[1:]:
        inside, closing, _ = part.partition("<|tool_call_end|>")
        found = _bare(inside) if closing else None
        if found is None:
            return None
        calls += found
    return calls


def _addressed(text: str, declared: Declared) -> list[Call] | None:
    calls = []
    rest = text.partition(_ADDRESSEE)[2]
    while rest:
        head, _, rest = rest.partition("<|message|>")
        said, _, rest = rest.partition("<|call|>")
        address = _ADDRESS.fullmatch(head)
        if address is None:
            return None
        calls.append({"name": address[1], "arguments": _json(said)})
        rest = rest.partition(_ADDRESSEE)[2]
    return listed_calls(calls)


_ADDRESSEE = "to=functions."
_MARKED: Mapping[str, Callable[[str, Declared], list[Call] | None]] = {
    "<tool_call>": _tagged,
    "[TOOL_CALLS]": _mistral,
    "<|tool_call_start|>": _between,
    "<|python_tag|>": _python_tag,
    _ADDRESSEE: _addressed,
}
"""The parser for each mark of a call; the mark that stands first in a text decides."""

MARKS = tuple(_MARKED)
"""Texts with which a call begins, where a syntax has one."""


def _bare(text: str) -> list[Call] | None:
    """Calls written as JSON (one, a list, or several with `;` between), else as Python."""
    first = _leading(text)
    if first is None:
        return _python_calls(text)
    values, place = [first[0]], first[1]
    while text.startswith(";", place):
        following = _leading(text, place + 1)
        if following is None:
            return None
        values.append(following[0])
        place = following[1]
    if place == len(text):
        return _objects(values)
    return _python_calls(text)


def _objects(values: list[Any]) -> list[Call] | None:
    """The calls of JSON values: objects, or one list of them."""
    if len(values) == 1 and isinstance(values[0], list):
        return listed_calls(values[0])
    return listed_calls(values)


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=without_twins, parse_constant=_no_number)


def read_json(text: str) -> Any:
    """A JSON value. Raises `ValueError` for a key that is given twice and for NaN too, and
    `RecursionError`."""
    return _DECODER.decode(text)


def _json(text: str) -> Any:
    """A JSON value without duplicate keys; `None` for any other text."""
    try:
        return read_json(text)
    except (ValueError, RecursionError):
        return None


def _leading(text: str, place: int = 0) -> tuple[Any, int] | None:
    """The JSON object or list that stands at a place, and the place after it and white space."""
    place = _past_space(text, place)
    if not text.startswith(("{", "["), place):
        return None
    try:
        value, end = _DECODER.raw_decode(text, place)
    except (ValueError, RecursionError):
        return None
    return value, _past_space(text, end)


def _past_space(text: str, place: int) -> int:
    while text[place : place + 1].isspace():
        place += 1
    return place


def _python_calls(text: str) -> list[Call] | None:
    try:
        body = ast.parse(text.strip(), mode="eval").body
        nodes = body.elts if isinstance(body, ast.List | ast.Tuple) else [body]
        calls = [_python_call(node) for node in nodes]
    except (SyntaxError, ValueError, RecursionError, MemoryError, TypeError):
        return None
    return calls or None


def _python_call(node: ast.expr) -> Call:
    """Parse `a.b(x=1)`; only literals are evaluated. Raises `ValueError`."""
    if not isinstance(node, ast.Call) or node.args or any(k.arg is None for k in node.keywords):
        raise ValueError("no call with named arguments")
    if not re.fullmatch(r"\w+(\.\w+)*", name := ast.unparse(node.func)):
        raise ValueError("no name of a function")
    arguments = without_twins(
        [(str(k.arg), _json_like(ast.literal_eval(k.value))) for k in node.keywords]
    )
    return Call(name, arguments)


def _json_like(value: Any) -> Any:
    """A literal as a JSON value. Raises `ValueError` for one that JSON cannot express."""
    if isinstance(value, list | tuple):
        return [_json_like(item) for item in value]
    if isinstance(value, dict):
        return {str(k): _json_like(v) for k, v in value.items()}
    if value is not None and not isinstance(value, str | int | float):
        raise ValueError("no JSON value")
    return value
