"""Scores tool calls: the right functions with the right arguments, no more and no fewer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from strop.text.parse import spoken
from strop.text.script import tools_of
from strop.text.tools import Call, calls_in, listed_calls
from strop.types import Text

_IGNORED = re.compile(r"[\s,./\-_*^]+")
_NUMERIC = re.compile(r"[\s,./\-+\d]+")

SameText = Callable[[str, str], bool]

OMITTED: Any = object()
"""Among accepted values: the argument may be left out."""

BROKEN = (ValueError, TypeError, AttributeError, RecursionError)
"""Exceptions from columns that hold no valid calls or tools."""

TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,), "number": (int, float), "float": (int, float), "string": (str,),
    "boolean": (bool,), "array": (list,), "tuple": (list,), "object": (dict,), "dict": (dict,),
}  # fmt: skip
"""JSON Schema's names and those of the Berkeley leaderboard."""


def tool_call(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    answer: Sequence[Any],
    tools: Sequence[Any] | None = None,
    **columns: object,
) -> list[float | None]:
    """1.0 where the completion makes exactly the calls of `answer`, in any order, else 0.0.

    Calls are read from a message's `tool_calls`, or from the text in the syntax of any model family
    (`strop.text.tools`); not from thoughts in `<think>`. A key or argument given twice, or a tag
    left open, makes a call invalid. An `answer` is a list of calls (or its JSON text), each
    `{"name": ..., "arguments": {...}}`, or in the Berkeley leaderboard's form `{"name":
    {"argument": [accepted values]}}`, where `""` among the values means that it may be left out.

    Texts compare without case, spaces and punctuation, as on that leaderboard (but `"1.5"` is not
    `"15"`, and if two calls of `answer` differ only in these, they count); numbers by value, never
    equal to booleans or texts. With `tools` (OpenAI's or the bare form) an argument also has to be
    of its declared type. `None` if `answer` holds no call, or a call that nothing can match (no
    accepted value), or if `answer` or `tools` cannot be read.
    """
    given = tools if tools is not None else [None] * len(answer)
    return [
        _score(completion, expected, offered)
        for completion, expected, offered in zip(completions, answer, given, strict=True)
    ]


def _score(completion: Text, answer: Any, tools: Any) -> float | None:
    try:
        expected = _expected(answer)
        known = {tool["name"]: tool.get("parameters") or {} for tool in _functions(tools)}
    except (*BROKEN, KeyError):
        return None
    if not expected:
        return None
    made = calls_of(completion, tools)
    if made is None or len(made) != len(expected):
        return 0.0
    return float(_paired([_met_by(call, expected, known) for call in made]))


def calls_of(completion: Text, tools: Any = None) -> list[Call] | None:
    """The calls of a completion; `None` if it has no valid ones."""
    if not isinstance(completion, str):
        turns = [m for m in completion if m.get("role", "assistant") == "assistant"]
        listed = [call for turn in turns for call in turn.get("tool_calls") or []]
        if listed:
            return listed_calls(listed)
    return calls_in(spoken(completion).strip(), tools_of(_as_list(tools)))


def _expected(answer: Any) -> list[Call]:
    """The calls of an answer, every argument with the list of its accepted values.

    Raises one of `BROKEN` for an invalid call.
    """
    calls = json.loads(answer) if isinstance(answer, str) else answer
    expected: list[Call] = []
    for call in calls if isinstance(calls, list) else [calls] if calls else []:
        if "function" in call or isinstance(call.get("name"), str):
            expected += [
                Call(c.name, _fixed(c.arguments)) for c in listed_calls([call]) or _no_calls()
            ]
        elif all(isinstance(accepted, dict) for accepted in call.values()):
            expected += [Call(name, _choices(accepted)) for name, accepted in call.items()]
        else:
            _no_calls()
    return expected


def _no_calls() -> list[Call]:
    raise ValueError("an answer is no call")


def _fixed(value: Any) -> Any:
    """Arguments with their values as the only accepted ones, in nested objects too."""
    if isinstance(value, dict):
        return {name: [_fixed(inner)] for name, inner in value.items()}
    return [_fixed(item) for item in value] if isinstance(value, list) else value


def _choices(value: Any) -> Any:
    """The leaderboard's accepted values, in nested objects too; `""` means `OMITTED` as well.

    Raises `ValueError` for an empty list, which no call could match.
    """
    if isinstance(value, dict):
        if not all(isinstance(accepted, list) and accepted for accepted in value.values()):
            raise ValueError("an argument has no list of accepted values")
        return {
            name: [*map(_choices, accepted), *([OMITTED] if "" in accepted else [])]
            for name, accepted in value.items()
        }
    return [_choices(item) for item in value] if isinstance(value, list) else value


def _functions(tools: Any) -> list[dict[str, Any]]:
    return [tool.get("function", tool) for tool in _as_list(tools)]


def _as_list(tools: Any) -> list[Any]:
    listed = json.loads(tools) if isinstance(tools, str) else tools or []
    return listed if isinstance(listed, list) else [listed]


def _paired(meets: Sequence[Sequence[bool]]) -> bool:
    """Whether the calls made can be matched one to one with expected calls (augmenting paths)."""
    taken: dict[int, int] = {}

    def finds(call: int, tried: set[int]) -> bool:
        for wanted, fits in enumerate(meets[call]):
            if fits and wanted not in tried:
                tried.add(wanted)
                if wanted not in taken or finds(taken[wanted], tried):
                    taken[wanted] = call
                    return True
        return False

    return all(finds(call, set()) for call in range(len(meets)))


def _met_by(call: Call, expected: Sequence[Call], tools: Mapping[str, Any]) -> list[bool]:
    """Which of the expected calls a call matches.

    If expected calls differ only in what folding ignores (`"a"` and `"A"`), it matches the one with
    the same spelling; else one of them could be made twice and the other left out.
    """
    folded = [_meets(call, wanted, tools, _same_text) for wanted in expected]
    met = [wanted for wanted, meets in zip(expected, folded, strict=True) if meets]
    if all(wanted == met[0] for wanted in met):
        return folded
    return [_meets(call, wanted, tools, _same_writing) for wanted in expected]


def _meets(call: Call, wanted: Call, tools: Mapping[str, Any], same_text: SameText) -> bool:
    if call.name != wanted.name:
        return False
    parameters = _inner(tools.get(wanted.name), "properties")
    return _same_object(call.arguments, wanted.arguments, parameters, same_text)


def _inner(schema: Any, name: str) -> Mapping[str, Any]:
    """The object `name` of a schema; empty if the schema declares none."""
    inner = schema.get(name) if isinstance(schema, dict) else None
    return inner if isinstance(inner, dict) else {}


def _same(given: Any, accepted: Any, schema: Mapping[str, Any], same_text: SameText) -> bool:
    """Equal in value and type. If an accepted value is not of the declared type (the leaderboard
    has such values), its own type counts."""
    declared = TYPES.get(str(schema.get("type")))
    if declared and _is(accepted, declared) and not _is(given, declared):
        return False
    if isinstance(accepted, bool) or isinstance(given, bool):
        return given is accepted
    if isinstance(accepted, int | float):
        return isinstance(given, int | float) and given == accepted
    if isinstance(accepted, str):
        return isinstance(given, str) and same_text(given, accepted)
    if isinstance(accepted, list):
        items = _inner(schema, "items")
        return (
            isinstance(given, list)
            and len(given) == len(accepted)
            and all(_same(g, a, items, same_text) for g, a in zip(given, accepted, strict=True))
        )
    if isinstance(accepted, dict):
        properties = _inner(schema, "properties")
        return isinstance(given, dict) and _same_object(given, accepted, properties, same_text)
    return bool(given == accepted)


def _same_object(
    given: Mapping[str, Any],
    accepted: Mapping[str, list[Any]],
    properties: Mapping[str, Any],
    same_text: SameText,
) -> bool:
    """Whether every name has one of its accepted values, and there is no other name."""
    return given.keys() <= accepted.keys() and all(
        any(
            _same(given[name], value, _inner(properties, name), same_text) if name in given
            else value is OMITTED
            for value in values
        )
        for name, values in accepted.items()
    )  # fmt: skip


def _same_text(given: str, accepted: str) -> bool:
    """Equal after folding; compared unfolded if one is a number or folds to nothing."""
    folded = _IGNORED.sub("", given).casefold()
    if not folded or _NUMERIC.fullmatch(accepted):
        return given.strip() == accepted.strip()
    return folded == _IGNORED.sub("", accepted).casefold()


def _same_writing(given: str, accepted: str) -> bool:
    return given.strip() == accepted.strip()


def _is(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
