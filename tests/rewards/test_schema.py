"""JSON that meets its schema earns 1.0, and what is ambiguous nothing."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest

from strop.rewards.schema import json_schema

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ('{"name": "Ann", "age": 5}', 1.0),
        ('\n {"name": "Ann"} \n', 1.0),
        ('```json\n{"name": "Ann"}\n```', 1.0),
        ('```\n{"name": "Ann"}\n```\n', 1.0),
        ('```json\n{"name": "```"}\n```', 1.0),
        ('<think>{"age"}</think>{"name": "Ann"}', 1.0),
        ('<think>{"name": "Ann"}</think>', 0.0),
        ('<think>{"name": "Ann"}', 0.0),
        ('{"name": "Ann", "age": 5.0}', 1.0),
        ('{"name": "Ann", "age": 5.5}', 0.0),
        ('{"name": "Ann", "age": -1}', 0.0),
        ('{"name": "Ann", "age": "5"}', 0.0),
        ('{"name": "Ann", "age": true}', 0.0),
        ('{"name": "Ann", "more": 1}', 0.0),
        ('{"age": 5}', 0.0),
        ('Here it is: {"name": "Ann"}', 0.0),
        ('{"name": "Ann"} I hope that helps', 0.0),
        ('{"name": "Ann"}{"name": "Bob"}', 0.0),
        ('```json\n{"name": "Ann"}\n```\n```json\n{"name": "Bob"}\n```', 0.0),
        ('```python\n{"name": "Ann"}\n```', 0.0),
        ('{"name": "Ann", "name": "Bob"}', 0.0),
        ('{"name": "Ann", "age": NaN}', 0.0),
        ('{"name": "Ann", "age": Infinity}', 0.0),
        ('{"name": "Ann", "age": 1e400}', 0.0),
        ('{"name": "Ann", "age": 1' + "0" * 300 + "}", 1.0),
        ('{"name": "Ann", "age": -1' + "0" * 300 + "}", 0.0),
        ('{"name": "Ann", "age": 1' + "0" * 9999 + "}", 0.0),
        ("{'name': 'Ann'}", 0.0),
        ('{"name": "Ann",}', 0.0),
        ('{"name": "\\ud800"}', 0.0),
        ("[" * 5000 + "]" * 5000, 0.0),
        ("", 0.0),
    ],
)
def test_json_schema(said: str, score: float) -> None:
    assert json_schema(["p"], [said], schema=[PERSON]) == [score]
    assert json_schema(["p"], [said], schema=[json.dumps(PERSON)]) == [score]


@pytest.mark.parametrize(
    "said", ["NaN", "[-Infinity]", "1e400", '{"a": 1, "a": 1}', r'["\ud800"]', "1 2", "'a'"]
)
def test_what_is_ambiguous_meets_no_schema(said: str) -> None:
    assert json_schema(["p"] * 2, [said, '{"a": "\u00e9"}'], schema=[True, True]) == [0.0, 1.0]


FORMATS = [
    ("date", "2022-02-28", "2022-02-31"),
    ("date-time", "2022-02-28T10:00:00Z", "2022-02-28 at ten"),
    ("time", "10:00:00Z", "25:00:00Z"),
    ("email", "a@example.org", "a at example.org"),
    ("ipv4", "127.0.0.1", "127.0.0.256"),
    ("ipv6", "::1", "::g"),
    ("uri", "https://example.org/a", "not a uri"),
    ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567"),
    ("hostname", "example.org", "-example-.org"),
    ("regex", "a+", "("),
    ("json-pointer", "/a/0", "a/0"),
    ("duration", "P1DT2H", "one day"),
    ("uri-reference", "/a?b=c", "\\\\a"),
]


DRAFTS = [
    None, "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema", "http://json-schema.org/draft-07/schema#",
    "http://json-schema.org/draft-06/schema#", "http://json-schema.org/draft-04/schema#",
]  # fmt: skip


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize(("form", "right", "wrong"), FORMATS)
def test_formats_are_asserted(form: str, right: str, wrong: str, draft: str | None) -> None:
    schema = {"type": "string", "format": form} | ({"$schema": draft} if draft else {})
    said = [json.dumps(right), json.dumps(wrong), "5"]
    assert json_schema(["p"] * 3, said, schema=[schema] * 3) == [1.0, 0.0, 0.0]
    inside = {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"format": form}}}
    said = [json.dumps({"a": right}), json.dumps({"a": wrong})]
    assert json_schema(["p"] * 2, said, schema=[inside] * 2) == [1.0, 0.0]


def test_a_format_that_no_draft_knows_asserts_nothing() -> None:
    schema = {"type": "string", "format": "colour"}
    assert json_schema(["p"] * 2, ['"red"', "5"], schema=[schema] * 2) == [1.0, 0.0]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"pattern": "("},
        {"$ref": "#/nowhere"},
        {"minimum": math.nan},
        {"type": {1, 2}},
        [],
        7,
        None,
        "",
        "{",
    ],
)
def test_a_broken_schema_is_unscored(schema: Any) -> None:
    assert json_schema(["p"] * 2, ["7"] * 2, schema=[schema, True]) == [None, 1.0]


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    import socket

    def dial(*args: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", dial)
    file = tmp_path / "number.json"
    file.write_text('{"type": "number"}')
    for reference in ("http://127.0.0.1:9/number.json", file.as_uri()):
        assert json_schema(["p"], ["7"], schema=[{"$ref": reference}]) == [None]


def test_deep_values_meet_recursive_schemas() -> None:
    nested = {"type": "array", "items": {"$ref": "#"}}
    deep = "[" * 400 + "]" * 400
    assert json_schema(["p"], [deep], schema=[nested]) == [1.0]
    assert json_schema(["p"], [deep.replace("[]", "[1]")], schema=[nested]) == [0.0]


@pytest.mark.slow
def test_schemas_are_checked_fast() -> None:
    count = 100_000
    said = [json.dumps({"name": f"person {i}", "age": i}) for i in range(count)]
    started = time.perf_counter()
    scores = json_schema(["p"] * count, said, schema=[PERSON] * count)
    rate = count / (time.perf_counter() - started)
    print(f"{rate:,.0f} checks a second")
    assert scores == [1.0] * count
    assert rate >= 20_000
