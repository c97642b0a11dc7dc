"""The Berkeley leaderboard's 400 functions and calls go through the machinery of tools unharmed."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from strop.rollout.tools.arguments import Arguments
from strop.text.tools import Call
from strop.text.turns import message_of
from tests.support import ROOT

DATA = Path(os.environ.get("STROP_DATA", ROOT.parent / "shared/data"))
NAMES = {"dict": "object", "float": "number", "tuple": "array"}
"""The leaderboard's names of types, and JSON Schema's."""

pytestmark = pytest.mark.skipif(
    not DATA.exists(), reason=f"no public data at {DATA} (set STROP_DATA)"
)


MISFITS = {"simple_python_307"}
"""Tasks that accept only an argument that is not of its declared type (true for a string)."""


def rows(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(DATA / "bfcl" / f"simple_python.{name}.jsonl.gz", "rt") as lines:
        yield from map(json.loads, lines)


def schema(given: Any) -> Any:
    """A description in JSON Schema's words."""
    if not isinstance(given, dict):
        return given
    named = {k: v for k, v in given.items() if (k, v) != ("type", "any")}
    if named.get("type") in NAMES:
        named["type"] = NAMES[named["type"]]
    if isinstance(named.get("properties"), dict):
        named["properties"] = {k: schema(v) for k, v in named["properties"].items()}
    if "items" in named:
        named["items"] = schema(named["items"])
    named.pop("optional", None)
    return named


def first(accepted: Any) -> Any:
    """The first accepted values; an argument is left out if nothing else is accepted."""
    if isinstance(accepted, dict):
        told = {k: [one for one in v if one != ""] for k, v in accepted.items()}
        return {k: first(v[0]) for k, v in told.items() if v}
    return [first(one) for one in accepted] if isinstance(accepted, list) else accepted


@cache
def tasks() -> list[tuple[str, list[dict[str, Any]], Call]]:
    """(id, tools, gold call) of every task."""
    found = []
    for task, answer in zip(rows("tasks"), rows("answers"), strict=True):
        assert task["id"] == answer["id"]
        functions = [{**f, "parameters": schema(f["parameters"])} for f in task["function"]]
        ((name, arguments),) = answer["ground_truth"][0].items()
        tools = [{"type": "function", "function": f} for f in functions]
        found.append((task["id"], tools, Call(name, first(arguments))))
    return found


def as_json(key: str, call: Call) -> str:
    return json.dumps({"name": call.name, key: call.arguments}, ensure_ascii=False)


def word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def tagged(call: Call) -> str:
    inner = "".join(
        f"<parameter={k}>\n{word(v)}\n</parameter>\n" for k, v in call.arguments.items()
    )
    return f"<tool_call>\n<function={call.name}>\n{inner}</function>\n</tool_call>"


def glm(call: Call) -> str:
    inner = "".join(
        f"<arg_key>{k}</arg_key>\n<arg_value>{word(v)}</arg_value>\n"
        for k, v in call.arguments.items()
    )
    return f"<tool_call>{call.name}\n{inner}</tool_call>"


def pythonic(call: Call) -> str:
    return f"[{call.name}({', '.join(f'{k}={v!r}' for k, v in call.arguments.items())})]"


def args(call: Call) -> str:
    return json.dumps(call.arguments, ensure_ascii=False)


SYNTAXES: dict[str, Callable[[Call], str]] = {
    "hermes": lambda call: f"<tool_call>\n{as_json('arguments', call)}\n</tool_call>",
    "qwen 3.5": tagged,
    "glm": glm,
    "llama 3": lambda call: as_json("parameters", call),
    "llama 3.1": lambda call: f"<|python_tag|>{as_json('parameters', call)}<|eom_id|>",
    "mistral 7b": lambda call: f"[TOOL_CALLS][{as_json('arguments', call)}]</s>",
    "mistral small": lambda call: f"[TOOL_CALLS]{call.name}[CALL_ID]aB3dE6gH9[ARGS]{args(call)}",
    "llama 4": pythonic,
    "lfm 2": lambda call: f"<|tool_call_start|>{pythonic(call)}<|tool_call_end|>",
    "gpt-oss": lambda call: (
        f" to=functions.{call.name}<|channel|>commentary json<|message|>{args(call)}<|call|>"
    ),
}


def same(one: Any, other: Any) -> bool:
    """Equal in value and in type: True is not 1, and 1.0 is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def test_every_description_is_accepted() -> None:
    assert len(tasks()) == 400
    for _, tools, _ in tasks():
        Arguments(tools)


def test_every_gold_call_fits_its_description() -> None:
    misfits = {
        id_: mistake.text
        for id_, tools, call in tasks()
        if (mistake := Arguments(tools).mistake(call)) is not None
    }
    assert misfits.keys() == MISFITS, misfits


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_gold_call_is_read_as_it_was_written(syntax: str) -> None:
    for id_, tools, call in tasks():
        said = message_of(SYNTAXES[syntax](call), tools)
        assert said.malformed == "", id_
        (read,) = said.calls
        assert read.name == call.name
        if id_ not in MISFITS:  # where a syntax shows no types, the declared one is taken
            assert same(read.arguments, call.arguments), id_
        assert said.message["tool_calls"][0]["function"]["arguments"] == read.arguments
        assert said.message["content"] is None


def twice(between: str, syntax: str) -> Callable[[Call, Call], str]:
    return lambda one, other: SYNTAXES[syntax](one) + between + SYNTAXES[syntax](other)


PARALLEL: dict[str, Callable[[Call, Call], str]] = {
    "hermes": twice("\n", "hermes"),
    "qwen 3.5": twice("\n", "qwen 3.5"),
    "glm": twice("\n", "glm"),
    "llama 3": twice("; ", "llama 3"),
    "mistral 7b": lambda one, other: (
        f"[TOOL_CALLS][{as_json('arguments', one)}, {as_json('arguments', other)}]"
    ),
    "mistral small": twice("", "mistral small"),
    "llama 4": lambda one, other: f"{pythonic(one)[:-1]}, {pythonic(other)[1:]}",
    "lfm 2": twice("\n", "lfm 2"),
    "gpt-oss": twice("<|start|>assistant<|channel|>commentary", "gpt-oss"),
}


@pytest.mark.parametrize("syntax", PARALLEL)
def test_two_calls_at_once_are_read_in_their_order(syntax: str) -> None:
    every = tasks()
    for (_, tools, one), (id_, more, other) in zip(every[::2], every[1::2], strict=True):
        said = message_of(PARALLEL[syntax](one, other), [*tools, *more], first=4)
        assert [call.name for call in said.calls] == [one.name, other.name]
        assert id_ in MISFITS or same(said.calls[1].arguments, other.arguments)
        ids = [call["id"] for call in said.message["tool_calls"]]
        written = syntax == "mistral small"
        assert ids == ["aB3dE6gH9" if written else "call00004", "call00005"], "no id stands twice"


def test_a_broken_argument_is_told() -> None:
    """Each required argument is left out once."""
    tried = 0
    for id_, tools, call in tasks():
        for name in tools[0]["function"]["parameters"].get("required", []):
            left = {k: v for k, v in call.arguments.items() if k != name}
            mistake = Arguments(tools).mistake(Call(call.name, left))
            assert mistake is not None, (id_, name)
            assert mistake.error == "arguments"
            assert f'"{name}" is a required property' in mistake.text
            tried += 1
    assert tried > 600
