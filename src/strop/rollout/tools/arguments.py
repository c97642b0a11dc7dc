"""Calls are checked against the tools' schemas before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import jsonschema_rs

from strop.errors import WorldError
from strop.rollout.tools.toolbox import ToolResult, told
from strop.text.tools import Call

SHOWN = 3
"""Mistakes of one call that are told at a time."""
LONGEST = 300
"""Characters of one mistake: it repeats what the model wrote."""


class Arguments:
    """Tells a model what is wrong with a call: `Arguments(tools).mistake(Call("add", {"a": "1"}))`.

    Raises `WorldError` for a schema that is none, and for two tools with one name.
    """

    def __init__(self, tools: Sequence[dict[str, Any]], where: str = "") -> None:
        self._schemas: dict[str, dict[str, Any]] = {}
        self._validators: dict[str, Any] = {}
        for tool in tools:
            name, schema = tool["function"]["name"], tool["function"].get("parameters") or {}
            if name in self._schemas:
                raise WorldError(
                    f"two tools are called {name!r}, and a call names only one",
                    where=where,
                    fix="give one of them another name, or leave it out",
                )
            self._schemas[name], self._validators[name] = schema, _validator(name, schema, where)

    def mistake(self, call: Call) -> ToolResult | None:
        """The error `unknown` or `arguments` of a call, in words for the model; `None` for a call
        that fits."""
        if call.name not in self._schemas:
            offered = ", ".join(self._schemas)
            name = _short(call.name)
            return told("unknown", f"there is no tool {name!r}; there are: {offered}")
        wrong = [*self._foreign(call), *self._wrong(call)]
        if not wrong:
            return None
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        return told("arguments", f"{call.name}: {'; '.join(wrong[:SHOWN])}{more}")

    def _foreign(self, call: Call) -> list[str]:
        """Arguments that the tool does not have, where its schema lists those it has."""
        schema = self._schemas[call.name]
        own = schema.get("properties")
        if not isinstance(own, dict) or {"additionalProperties", "patternProperties"} & set(schema):
            return []
        has = f"it has {', '.join(own)}" if own else "it has none"
        return [
            f"there is no argument {_short(name)!r}; {has}"
            for name in call.arguments
            if name not in own
        ]

    def _wrong(self, call: Call) -> list[str]:
        given = dict(call.arguments)
        try:
            errors = self._validators[call.name].iter_errors(given)
            return [_said(error) for error in islice(errors, 10 * SHOWN)]
        except ValueError as error:  # a number that no float holds, half a surrogate pair
            return [f"the arguments cannot be read: {error}"]


def _validator(name: str, schema: Any, where: str) -> Any:
    problem = ""
    if not isinstance(schema, dict):
        problem = "it is no object"
    elif schema.get("type", "object") != "object":
        problem = f"its type is {schema['type']!r}, and arguments are an object"
    else:
        try:
            return jsonschema_rs.validator_for(_with_null(schema), retriever=_not_fetched)
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            problem = str(error).splitlines()[0]
    raise WorldError(
        f"the parameters of the tool {name!r} are no JSON schema: {problem}",
        where=where,
        fix='write them like {"type": "object", "properties": {"city": {"type": "string"}}, '
        '"required": ["city"]}',
    )


def _with_null(schema: Any) -> Any:
    """The schema in JSON Schema's own words where it says `nullable: true`, which are OpenAPI's: it
    is how transformers describes `int | None`, and validators do not know them."""
    if isinstance(schema, list):
        return [_with_null(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    own = {key: _with_null(value) for key, value in schema.items()}
    if own.get("nullable") is not True:
        return own
    del own["nullable"]
    return {"anyOf": [own, {"type": "null"}]}


def _not_fetched(address: str) -> Any:
    raise ValueError(f"it refers to {address}, and nothing is fetched")


def _said(error: Any) -> str:
    place = ".".join(map(str, error.instance_path))
    return _short(f"{place}: {error.message}" if place else str(error.message))


def _short(said: str) -> str:
    """Its beginning and its end, where the model's own words in it are long."""
    return said if len(said) <= LONGEST else f"{said[: LONGEST // 2]} ... {said[-LONGEST // 2 :]}"
