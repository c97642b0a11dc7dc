"""What an answer has to be: JSON, or JSON of a schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import jsonschema_rs

from strop.errors import UsageError

MOST_SCHEMA = 2**16
"""Characters of a schema: the work of reading one is a client's to cause."""

MOST_DEPTH = 64
"""Schemas within each other. The time that xgrammar takes grows with the third power: 0.04 seconds
for 64, 1.6 for 256 (and whoever asks next for JSON waits for it)."""

MOST_COUNT = 10_000
"""Items or characters that a schema may count."""

WORDS = frozenset({"$schema", "$id", "$comment", "$defs", "definitions", "title", "description",
                   "default", "examples", "deprecated", "readOnly", "writeOnly"})  # fmt: skip
"""What says nothing of a value."""

ALONE = ("$ref", "anyOf", "enum", "const")
"""What xgrammar reads without looking at its neighbours."""

COUNTS = ("minItems", "maxItems", "minLength", "maxLength")
TEXT = ("pattern", "format", "minLength", "maxLength")
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
ENFORCED = frozenset({*ALONE, *COUNTS, *TEXT, *BOUNDS, "type", "properties", "required",
                      "additionalProperties", "items", "prefixItems"})  # fmt: skip
PLAIN_PATTERN = re.compile(r'(?:[^"\\]|\\[dDwWsS.+*?()\[\]{}|/^$-])*')
"""Without quotation marks, backslashes and characters by their numbers, which xgrammar would write
into a text as they are."""
FORMATS = frozenset({"date", "time", "date-time", "email", "uuid"})
"""Their form is kept: a date may be a 30th of February."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """`Grammar("json_object")`, or `Grammar("json_schema", '{"type": "integer"}')`: a JSON schema
    as JSON text; or `Grammar("call", '[{"before": "<tool_call>", "schema": {...}, "after":
    "</tool_call>"}]')`: one of several texts, JSON of a schema with fixed text around it.

    Answers of a schema have the properties that it names, in its order, and no others unless it
    says `additionalProperties`.
    """

    kind: Literal["json_object", "json_schema", "call"]
    schema: str = ""


@lru_cache(256)
def expect_enforced(text: str) -> None:
    """Raise `UsageError`, with the place, unless this is a JSON schema all of whose demands are
    kept by answers that are drawn by its grammar (as tried with xgrammar 0.2.9)."""
    if len(text) > MOST_SCHEMA:
        raise UsageError(f"a schema has at most {MOST_SCHEMA} characters", where="json_schema")
    try:
        schema = json.loads(text)
        jsonschema_rs.meta.validate(schema)
    except jsonschema_rs.ValidationError as error:
        raise _no_schema(error.message, "/".join(map(str, ("#", *error.instance_path)))) from None
    except (ValueError, RecursionError) as error:
        raise _no_schema(str(error)) from None
    for place, part in _parts("#", schema, MOST_DEPTH):
        if problem := _problem(part, schema):
            raise UsageError(f"the grammar cannot keep to {problem}", where=f"json_schema{place}",
                             fix="leave it out of the schema and check answers afterwards"
                             )  # fmt: skip


def _no_schema(said: str, place: str = "") -> UsageError:
    return UsageError(f"this is not a JSON schema: {said}", where=f"json_schema{place}")


def _parts(place: str, schema: Any, levels: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A schema and all within it, with their places. Raises `UsageError` for more than so many
    levels."""
    if not isinstance(schema, dict):
        return
    if not levels:
        raise UsageError(f"a schema has at most {MOST_DEPTH} schemas within each other",
                         where="json_schema")  # fmt: skip
    yield place, schema
    for name in ("properties", "$defs", "definitions"):
        for key, part in schema.get(name, {}).items():
            yield from _parts(f"{place}/{name}/{key}", part, levels - 1)
    for name in ("anyOf", "prefixItems"):
        for number, part in enumerate(schema.get(name, ())):
            yield from _parts(f"{place}/{name}/{number}", part, levels - 1)
    for name in ("items", "additionalProperties"):
        yield from _parts(f"{place}/{name}", schema.get(name), levels - 1)


def _problem(part: Mapping[str, Any], whole: Any) -> str:
    """What in this part of a schema would not be kept, its own parts aside."""
    demands = part.keys() - WORDS
    if unknown := sorted(demands - ENFORCED):
        return f"{unknown[0]!r}"
    alone = [name for name in ALONE if name in demands]
    if alone and (beside := sorted(demands - {alone[0]})):
        listed = {"enum", "const"} & demands
        if beside != ["type"] or not (listed and _repeats_type(part)):
            return f"{beside[0]!r} beside {alone[0]!r}"
    if missing := sorted(set(part.get("required", ())) - part.get("properties", {}).keys()):
        return f"'required': the property {missing[0]!r} is not among 'properties'"
    text = [name for name in TEXT if name in demands]
    if len(text) > 1 and set(text) != {"minLength", "maxLength"}:
        return f"{text[1]!r} beside {text[0]!r}"
    if part.get("format", "date") not in FORMATS:
        return f"the format {part['format']!r}"
    if any(part.get(name, 0) > MOST_COUNT for name in COUNTS):
        return f"counts above {MOST_COUNT}"
    if not PLAIN_PATTERN.fullmatch(part.get("pattern", "")):
        return f"the pattern {part['pattern']!r}"
    if "$ref" in part and not _found(part["$ref"], whole):
        return f"the reference {part['$ref']!r}, which is not in the schema"
    return ""


def _repeats_type(part: Mapping[str, Any]) -> bool:
    """Whether values that are listed have the type that stands beside them anyway."""
    listed = part.get("enum", [part.get("const")])
    return all(jsonschema_rs.is_valid({"type": part.get("type", "null")}, one) for one in listed)


def _found(reference: str, whole: Any) -> bool:
    first, *names = reference.split("/")
    for name in names:
        if not isinstance(whole, dict) or name not in whole:
            return False
        whole = whole[name]
    return first == "#"
