"""Answers that keep to a grammar: every finished one is JSON of its schema."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Request, Sampling
from strop.engines.grammar import MOST_DEPTH, Grammar, expect_enforced
from strop.engines.local.constrained import Grammars
from strop.engines.local.engine import LocalEngine
from strop.engines.server.held import Held
from strop.errors import UsageError
from strop.types import Completion, Origin, Task

ANY = Grammar("json_object")
SCHEMAS: dict[str, Any] = {
    "enum": {"enum": ["red", "green", 3, None]},
    "const": {"const": {"a": [1, 2]}},
    "number": {"type": "number", "minimum": -3, "maximum": 4.5},
    "integer": {"type": "integer", "exclusiveMinimum": 7, "maximum": 20},
    "text": {"type": "string", "minLength": 2, "maxLength": 6},
    "pattern": {"type": "string", "pattern": "^[a-c]{2}-[0-9]{1,3}$"},
    "dotted": {"type": "string", "pattern": "^.{2,4}\\.[^a]\\s$"},
    "date": {"type": "string", "format": "date"},
    "email": {"type": "string", "format": "email"},
    "uuid": {"type": "string", "format": "uuid"},
    "when": {"type": "string", "format": "date-time"},
    "time": {"type": "string", "format": "time"},
    "list": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    "pair": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "null"}],
             "minItems": 2, "items": False},
    "either": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "null"}}]},
    "object": {
        "type": "object", "required": ["ok", "n"],
        "properties": {
            "ok": {"type": "boolean"}, "n": {"type": ["integer", "null"]},
            "more": {"$ref": "#/$defs/more"},
        },
        "additionalProperties": False,
        "$defs": {"more": {"type": "object", "properties": {"x": {"const": 1}}}},
    },
    "open": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
             "additionalProperties": {"type": "boolean"}},
}  # fmt: skip


def schema(name: str) -> Grammar:
    return Grammar("json_schema", json.dumps(SCHEMAS[name]))


def request(grammar: Grammar | None, seed: int, **how: Any) -> Request:
    prompt = PromptedTask(Task("", {}, Origin("t", 0)), (2, 40, 41, 42, 3))
    sampling = Sampling(**{"max_tokens": 80, "grammar": grammar, **how})
    return Request(prompt, sampling, DrawKey(seed, "served"))


@pytest.fixture(scope="module")
def engine(model_folder: Path) -> LocalEngine:
    return LocalEngine(str(model_folder))


def answers(engine: LocalEngine, asked: list[Request]) -> list[Completion]:
    return [made for _, made in sorted(engine.generate(asked), key=lambda pair: pair[0])]


def is_ended(engine: LocalEngine, made: Completion) -> bool:
    return made.ids[-1] in engine._sampler.stop_ids


def test_every_finished_answer_is_json_of_its_schema(engine: LocalEngine) -> None:
    """Of a random model, which would say anything; hundreds of seeded answers, all at once."""
    asked = [(name, request(schema(name), n)) for name in SCHEMAS for n in range(24)]
    asked += [("any", request(ANY, n, temperature=0.7)) for n in range(80)]
    finished: Counter[str] = Counter()
    for (name, _), made in zip(asked, answers(engine, [one for _, one in asked]), strict=True):
        if made.finish == "length":
            assert len(made.ids) == 80
            continue
        finished[name] += 1
        value = json.loads(made.text)
        whole = SCHEMAS.get(name, {"type": "object"})
        exact = name == "uuid"  # of the others the form is kept
        assert jsonschema_rs.is_valid(whole, value, validate_formats=exact), (name, made.text)
        assert is_ended(engine, made)
    assert all(finished[name] for name in SCHEMAS), finished
    assert finished.total() >= 300


def test_without_a_grammar_the_same_model_says_no_json(engine: LocalEngine) -> None:
    for made in answers(engine, [request(None, n) for n in range(20)]):
        with pytest.raises(json.JSONDecodeError):
            json.loads(made.text)


def test_an_answer_without_a_grammar_does_not_notice_one_with(engine: LocalEngine) -> None:
    plain = [request(None, n) for n in range(6)]
    found = answers(engine, [*plain, *(request(ANY, n) for n in range(6))])[:6]
    assert [made.ids for made in found] == [made.ids for made in answers(engine, plain)]


def test_log_probs_are_those_of_the_tokens_that_the_grammar_allows(engine: LocalEngine) -> None:
    """A constant can be said in few ways: its log-probs add up to 0 where there is one."""
    (made,) = answers(engine, [request(schema("const"), 1, top_logprobs=400)])
    assert made.likeliest is not None
    end = made.likeliest[-1]
    assert [(token, logprob) for token, logprob in end if token == made.ids[-1]] == [
        (made.ids[-1], (made.logprobs or ())[-1])
    ]
    for listed in made.likeliest:
        assert len(listed) < 20, "of 325 tokens few go on"
    assert {token for token, _ in end} <= engine._sampler.stop_ids


@pytest.mark.parametrize("how", [{"temperature": 0.0}, {"top_k": 3}, {"top_p": 0.5},
                                 {"repetition_penalty": 1.5, "presence_penalty": 2.0},
                                 {"logit_bias": ((50, 100.0),)}])  # fmt: skip
def test_with_other_ways_to_draw(engine: LocalEngine, how: dict[str, Any]) -> None:
    asked = [request(schema("list"), n, max_tokens=400, **how) for n in range(4)]
    for made in answers(engine, asked):
        assert made.finish == "stop"
        assert jsonschema_rs.is_valid(SCHEMAS["list"], json.loads(made.text))


def test_a_stop_string_ends_an_answer_where_it_is_said(engine: LocalEngine) -> None:
    """The user's own word counts: until there the answer is the one without it."""
    whole = answers(engine, [request(schema("list"), n) for n in range(8)])
    cut = answers(engine, [request(schema("list"), n, stop=(",",)) for n in range(8)])
    assert any("," in made.text for made in whole)
    for one, made in zip(whole, cut, strict=True):
        head, comma, _ = one.text.partition(",")
        assert made.text == head + comma
        assert made.finish == ("stop" if comma else one.finish)


def test_a_model_without_an_end_stops_where_the_grammar_is_complete(
    model_folder: Path, tokenizer: Any
) -> None:
    engine = LocalEngine(str(model_folder))
    sampler = engine._sampler
    sampler.stop_ids = frozenset()
    sampler._grammars = Grammars(tokenizer, sampler.vocabulary, ())
    made = answers(engine, [request(schema("object"), n, max_tokens=200) for n in range(6)])
    ended = [one for one in made if one.finish == "stop"]
    assert ended
    for one in ended:
        assert one.text.endswith("}")
        assert jsonschema_rs.is_valid(SCHEMAS["object"], json.loads(one.text))


def nested(levels: int) -> str:
    """A schema of lists of lists, so many within each other."""
    return '{"items": ' * (levels - 1) + '{"type": "null"}' + "}" * (levels - 1)


class TestSchemas:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("{", "json_schema: this is not a JSON schema: Expecting property name"),
            ("3", "json_schema#: this is not a JSON schema: 3 is not of types"),
            ('{"properties": {"a": {"type": "nubmer"}}}',
             "json_schema#/properties/a/type: this is not a JSON schema"),
            ('{"properties": {"a": {"not": {}}}}', "json_schema#/properties/a: .* keep to 'not'"),
            ('{"items": {"anyOf": [{"oneOf": [true]}]}}', "json_schema#/items/anyOf/0: .*'oneOf'"),
            ('{"anyOf": [true], "type": "null"}', "keep to 'type' beside 'anyOf'"),
            ('{"enum": ["a"], "type": "null"}', "keep to 'type' beside 'enum'"),
            ('{"required": ["a"]}', "the property 'a' is not among 'properties'"),
            ('{"pattern": "a", "minLength": 2}', "keep to 'minLength' beside 'pattern'"),
            (r'{"pattern": "a\"b"}', "keep to the pattern 'a\"b'"),
            (r'{"pattern": "a\\\\b"}', "keep to the pattern"),
            (r'{"pattern": "\\u0022"}', "keep to the pattern"),
            ('{"format": "colour"}', "keep to the format 'colour'"),
            ('{"$ref": "http://127.0.0.1/a"}', "the reference 'http://127.0.0.1/a', which is not"),
            ('{"$ref": "#/$defs/a"}', "the reference '#/\\$defs/a', which is not"),
            ('{"minLength": 1000000}', "counts above 10000"),
            (json.dumps({"description": "x" * 70_000}), "at most 65536 characters"),
            (nested(MOST_DEPTH + 1), "at most 64 schemas within each other"),
            (nested(600), "at most 64 schemas within each other"),
        ],
    )  # fmt: skip
    def test_one_that_cannot_be_kept_is_refused_with_the_place(self, text: str, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            expect_enforced(text)

    @pytest.mark.parametrize("name", SCHEMAS)
    def test_one_that_can(self, name: str) -> None:
        expect_enforced(json.dumps({"title": "t", "description": "d", **SCHEMAS[name]}))

    def test_one_as_deep_as_may_be(self) -> None:
        expect_enforced(nested(MOST_DEPTH))

    def test_one_of_nothing(self, engine: LocalEngine) -> None:
        """It is a schema, and there is no value of it."""
        empty = Grammar("json_schema", '{"type": "integer", "minimum": 5, "maximum": 3}')
        with pytest.raises(UsageError, match="json_schema: no answer can be of this schema"):
            list(engine.generate([request(empty, 0)]))


def test_each_is_compiled_once(engine: LocalEngine) -> None:
    """A second request of a schema takes what there is; another schema is another."""
    grammars = engine._sampler._grammars
    made = [grammars.matcher(schema(name)).held for name in ("date", "date", "pair")]
    states = [held.find_jump_forward_string() for held in made]
    assert states[0] == states[1] != states[2]
    before = grammars._compiler.get_cache_size_bytes()
    grammars.matcher(schema("date"))
    assert grammars._compiler.get_cache_size_bytes() == before


def test_without_xgrammar_the_message_names_the_extra(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xgrammar", None)
    with pytest.raises(UsageError, match="need xgrammar") as refused:
        list(LocalEngine(str(model_folder)).generate([request(ANY, 0)]))
    assert "pip install 'strop[grammar]'" in str(refused.value)


def test_served(model_folder: Path) -> None:
    """One that is refused fails alone; the others are what the engine says without a server."""
    held = Held(str(model_folder))
    asked = [request(schema("object"), n) for n in range(5)]
    bad = Grammar("json_schema", '{"type": "nobody"}')
    futures = [held.sample(one, None) for one in (*asked, replace(
        asked[0], sampling=replace(asked[0].sampling, grammar=bad)))]  # fmt: skip
    with pytest.raises(UsageError, match="not a JSON schema"):
        futures[-1].result(60)
    wanted = answers(LocalEngine(str(model_folder)), asked)
    assert [f.result(60).what.ids for f in futures[:-1]] == [made.ids for made in wanted]
    held.close()
