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

A key or argument that is given twice, or a tag that is left open, is no call.
"""  # noqa: E501 - a table's line

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from strop.text.chat.template import Tools

_FENCED = re.compile(r"```(?:json|python)?[ \t]*\n(.*?)```", re.DOTALL)
_NAME = re.compile(r"[\w.-]+")
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
    marked = next((read for mark, read in _MARKED.items() if mark in text), None)
    if marked is not None:
        return marked(text, _declared(tools))
    fenced = _FENCED.findall(text)
    return _bare(fenced[0] if len(fenced) == 1 else text)


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
    """The content of every `<tool_call>`."""
    return _enclosed(text, ("<tool_call>", "</tool_call>"), lambda said: _inside(said, declared))


def _enclosed(
    text: str, marks: tuple[str, str], read: Callable[[str], list[Call] | None]
) -> list[Call] | None:
    """The calls between all pairs of marks; `None` if one is left open or holds no valid call."""
    calls: list[Call] = []
    for part in text.split(marks[0])[1:]:
        inside, closing, _ = part.partition(marks[1])
        found = read(inside) if closing else None
        if found is None:
            return None
        calls += found
    return calls


def _inside(text: str, declared: Declared) -> list[Call] | None:
    function = text.strip()
    if function.startswith("<function=") and function.endswith("</function>"):
        head, _, body = function[len("<function=") : -len("</function>")].partition(">")
        return _paired(head, _pairs(body, "<parameter=", ">", "</parameter>"), declared)
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
    """A value from text: parsed as JSON; the text itself if it is no JSON or declared as a
    string."""
    text = said.removeprefix("\n").removesuffix("\n")
    if isinstance(schema, dict) and schema.get("type") == "string":
        return text
    value = _json(text)
    return text if value is None and text.strip() != "null" else value


def _mistral(text: str, declared: Declared) -> list[Call] | None:
    parts = text.split("[TOOL_CALLS]")[1:]
    calls: list[Call] = []
    for part in parts:
        head, marked, arguments = part.partition("[ARGS]")
        name, _, given = (part.strip() for part in head.partition("[CALL_ID]"))
        read = (
            listed_calls([{"name": name, "arguments": _json(arguments), "id": given}])
            if marked and _NAME.fullmatch(name)
            else _bare(part)
        )
        if read is None:
            return None
        calls += read
    return calls


def _python_tag(text: str, declared: Declared) -> list[Call] | None:
    return _bare(text.split("<|python_tag|>", 1)[1])


def _between(text: str, declared: Declared) -> list[Call] | None:
    return _enclosed(text, ("<|tool_call_start|>", "<|tool_call_end|>"), _bare)


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
"""The parser for each mark of a call; the first mark in a text decides."""

MARKS = tuple(_MARKED)
"""Texts with which a call begins, where a syntax has one."""


def _bare(text: str) -> list[Call] | None:
    """Calls written as JSON (one, a list, or several with `;` between), else as Python."""
    value = _json(text)
    if value is not None:
        return listed_calls(value if isinstance(value, list) else [value])
    several = [_json(part) for part in re.split(r";(?=\s*\{)", text.strip())]
    if len(several) > 1 and None not in several:
        return listed_calls(several)
    return _python_calls(text)


def _json(text: str) -> Any:
    """A JSON value without duplicate keys; `None` for any other text."""
    try:
        return json.loads(text, object_pairs_hook=without_twins)
    except (ValueError, RecursionError):
        return None


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
