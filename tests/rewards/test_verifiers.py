"""Verifiers by hand: what is right earns 1.0, near misses 0.0, and cheats nothing."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from strop.rewards.answer.number import value_of
from strop.rewards.code import code_tests, program_of
from strop.rewards.exact import exact_answer
from strop.rewards.math import math_answer
from strop.rewards.schema import json_schema
from strop.rewards.style import (
    cosine_length,
    language,
    length,
    overlong,
    regex,
    repetition,
    similarity,
)
from strop.rewards.tools import calls_of, tool_call
from strop.text.lengths import overlong_penalty
from strop.text.parse import last_boxed, last_tag, plain, spoken
from strop.text.tools import Call
from strop.types import Text
from tests.support.clocks import at_most

SIZE = 100_000

BOTH: list[tuple[str, object, float]] = [
    # where an answer is found
    ("<answer>5</answer>", "5", 1.0),
    ("<answer>6</answer> 5", "5", 0.0),
    ("<answer>5</answer> no, <answer>6</answer>", "5", 0.0),
    (r"<answer>\boxed{5}</answer>", 5, 1.0),
    (r"<answer>\boxed{5} or \boxed{6}</answer>", 6, 0.0),
    (r"\boxed{5}", "5", 1.0),
    (r"\boxed{5} and \boxed{6}", "5", 0.0),
    (r"\boxed{5} and \boxed{6", "5", 1.0),
    (r"\boxed{\boxed{5}}", "5", 1.0),
    ("2 + 3 = 5\n#### 5", "5", 1.0),
    ("#### 5\n#### 6", "5", 0.0),
    ("2 + 3 = 5\nA: 5", "2 + 3 = 5\nA: 5", 1.0),
    ("A: 5\nB: 6\nC: 7\nThe answer is C", "C", 1.0),
    ("A: 5\nB: 6\nC: 7\nThe answer is C", "5", 0.0),
    ("The answer is 18.", 18, 1.0),
    ("The answer is **18**", 18, 1.0),
    ("The answer is $18 because 3 + $15", "18", 1.0),
    ("The answer is $18$.", "18", 1.0),
    ("we get 3, then 18", 18, 1.0),
    ("18 is more than 3", 18, 0.0),
    ("1 2 3 4 5 6 7 8 9", "5", 0.0),
    ("", "5", 0.0),
    ("nothing", "5", 0.0),
    ("Monday", "Monday", 1.0),
    ("Tuesday", "Monday", 0.0),
    ("The answer is Monday.", "monday", 1.0),
    # thoughts
    ("<think>6</think>5", "5", 1.0),
    (r"<think>\boxed{5}</think>", "5", 0.0),
    (r"<think>\boxed{5}</think>I do not know.", "5", 0.0),
    (r"<think>so \boxed{5}", "5", 0.0),
    (r"\boxed{5} hmm</think> so 6", "5", 0.0),
    ("hmm</think> so 5", "5", 1.0),
    (r"\boxed{6}<think>\boxed{5}</think>", "5", 0.0),
    # numbers
    ("#### 1,000", "1000", 1.0),
    ("#### 1,000", "1000.0", 1.0),
    ("#### 1,000.5", 1000.5, 1.0),
    ("#### 1 000 000", "1000000", 1.0),
    (r"\boxed{1{,}000}", "1000", 1.0),
    (r"\boxed{10\,000}", "10000", 1.0),
    ("#### 1,2", "12", 0.0),
    ("#### 5, 6", "56", 0.0),
    ("#### 5 7", "57", 0.0),
    ("#### 1_0", "10", 0.0),
    ("#### 1/2", "0.5", 1.0),
    ("#### 1/2", 0.5, 1.0),
    ("#### 2/4", "1/2", 1.0),
    ("#### 1/2", "2", 0.0),
    ("#### 1/0", "5", 0.0),
    ("#### 0.333", "1/3", 0.0),
    ("#### 1/3", 1 / 3, 1.0),
    ("#### 0.3", 0.1 + 0.2, 1.0),
    ("#### 9007199254740993", "9007199254740992", 0.0),
    (r"\boxed{\frac{1}{2}}", "0.5", 1.0),
    (r"\boxed{-\frac12}", "-0.5", 1.0),
    (r"\boxed{\frac{1}{2}}", "2", 0.0),
    (r"\boxed{\frac{-1}{2}}", "0.5", 0.0),
    ("#### -5", "5", 0.0),
    ("#### \u22125", "-5", 1.0),
    ("so it is \u22125", "5", 0.0),
    ("so 12-5", "-5", 0.0),
    ("#### $5", "5", 1.0),
    (r"\boxed{\$1,234.50}", "1234.5", 1.0),
    ("#### \u20ac5", "5", 1.0),
    ("#### 5%", "5", 1.0),
    (r"\boxed{5\%}", "5%", 1.0),
    ("#### 5%", "500", 0.0),
    (r"\boxed{90^\circ}", "90", 1.0),
    ("#### 90\u00b0", r"90^{\circ}", 1.0),
    ("#### 1.5e3", "1500", 1.0),
    (r"\boxed{1.5 \times 10^{3}}", "1500", 1.0),
    (r"\boxed{1.5 \cdot 10^3}", 1500, 1.0),
    (r"\boxed{1.5 \times 10^{4}}", "1500", 0.0),
    (r"\boxed{2 \times 10^{-2}}", 0.02, 1.0),
    ("#### \uff11\uff12", "12", 1.0),
    # texts
    (r"\boxed{\text{Monday}}", "Monday", 1.0),
    (r"\boxed{(C)}", "C", 1.0),
    (r"\boxed{C}", "(C)", 1.0),
    (r"\boxed{ABCD}", "C", 0.0),
    (r"\boxed{A, B, C, D}", "C", 0.0),
    ("\\boxed{\u0421}", "C", 0.0),
    ("<answer>B2</answer>", "B2", 1.0),
    ("<answer>2</answer>", "B2", 0.0),
    ("<answer>New  york.</answer>", "New York", 1.0),
    ("<answer></answer>", ".", 0.0),
    # several answers are none
    ("<answer>5 or 6</answer>", "5", 0.0),
    (r"\boxed{5 \text{ or } 6}", "5", 0.0),
    (r"\boxed{5 or 7}", "5", 0.0),
    (r"\boxed{5 and 7}", "5", 0.0),
    (r"\boxed{5, 6}", "5", 0.0),
    (r"\boxed{5, 6, 7}", "6", 0.0),
    (r"\boxed{\pm 5}", "5", 0.0),
    # huge numbers
    ("#### " + "9" * 10_000, "5", 0.0),
    ("#### 1e999999999", "5", 0.0),
    ("#### 1e-999999999", "0", 0.0),
    (r"\boxed{1 \times 10^{999999999}}", "5", 0.0),
    # not text at all
    ("\ud800", "5", 0.0),
    ("\\boxed{\ud800}", "5", 0.0),
    (r"\boxed{\frac{1}{}", "1/2", 0.0),
]


@pytest.mark.parametrize("verifier", [exact_answer, math_answer])
@pytest.mark.parametrize(("said", "gold", "score"), BOTH)
def test_answers(
    verifier: Callable[..., list[float | None]], said: str, gold: object, score: float
) -> None:
    assert verifier(["p"], [said], answer=[gold]) == [score]


MATHS: list[tuple[str, object, float]] = [
    (r"\sqrt{8}", r"2\sqrt{2}", 1.0),
    (r"\sqrt{8}", r"\sqrt{2}", 0.0),
    (r"\sqrt[3]{27}", "3", 1.0),
    (r"2\sqrt{3} + 1", r"1 + 2\sqrt3", 1.0),
    (r"\frac{\pi}{2}", r"\pi/2", 1.0),
    (r"\frac{\pi}{2}", r"\pi/3", 0.0),
    ("3.14", r"\pi", 0.0),
    (r"1\frac{1}{2}", r"\frac32", 1.0),
    (r"1\frac{1}{2}", "1.5", 1.0),
    (r"1\frac{1}{2}", "5.5", 0.0),
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}", 1.0),
    ("5 + 7", "12", 1.0),
    ("5 + 7", "13", 0.0),
    ("2 + 3i", "3i + 2", 1.0),
    ("2 + 3i", "3 + 2i", 0.0),
    (r"\log_2 8", "3", 1.0),
    # percentages
    (r"50\%", "0.5", 1.0),
    (r"50\%", "50", 1.0),
    ("0.5", r"50\%", 1.0),
    (r"50\%", "5000", 0.0),
    ("5000", r"50\%", 0.0),
    ("50 percent", r"50\%", 1.0),
    # units: only where both name one
    (r"5\text{ cm}", "5", 1.0),
    (r"5\text{ cm}", "5 cm", 1.0),
    ("5 cm", "5 m", 0.0),
    (r"5\text{ cm}^2", r"5\text{ cm}", 0.0),
    (r"5\text{ cm}^2", r"5\text{ cm}^{2}", 1.0),
    ("6 cm", "5 cm", 0.0),
    ("5 apples", "5", 1.0),
    ("5 apples", "5 pears", 0.0),
    ("5 cents", r"\$5", 0.0),
    ("5 dollars", "$5", 1.0),
    ("5 million", "5", 0.0),
    ("5 times 7", "5", 0.0),
    ("5 or six", "5", 0.0),
    ("5x", "5", 0.0),
    ("5i", "5", 0.0),
    ("5 pi", "5", 0.0),
    ("5xy", "5", 0.0),
    # intervals, sets, tuples
    ("[0,1]", "[0, 1]", 1.0),
    ("(0,1)", "[0,1]", 0.0),
    ("(0,1]", "[0,1)", 0.0),
    (r"(-\infty, 3)", "x < 3", 1.0),
    (r"(-\infty,3) \cup (5,\infty)", r"(5,\infty) \cup (-\infty,3)", 1.0),
    (r"(-\infty,3) \cup (5,\infty)", r"(-\infty,3)", 0.0),
    (r"\{2, 1\}", r"\{1, 2\}", 1.0),
    (r"\{1, 2, 3\}", r"\{1, 2\}", 0.0),
    (r"\{1, 2, 3\}", "2", 0.0),
    ("(1, 2)", "(1,2)", 1.0),
    ("(2, 1)", "(1,2)", 0.0),
    ("(1, 2, 3)", "(1,2)", 0.0),
    # equations
    ("x = 5", "5", 1.0),
    ("x = 6", "5", 0.0),
    ("5", "x = 5", 1.0),
    ("2y = 4x", "y = 2x", 1.0),
    ("0 = 0", "y = 2x", 0.0),
    ("x = x", "y = 2x", 0.0),
    ("x^2 - 1", "(x-1)(x+1)", 1.0),
    ("x^2 + 1", "(x-1)(x+1)", 0.0),
    (r"x=5 \text{ or } x=6", "5", 0.0),
    (r"x=5 \lor x=6", "6", 0.0),
    # words are no products of letters
    ("act", "cat", 0.0),
    ("dog cat", r"\text{cat dog}", 0.0),
    (r"\text{cat dog}", "Cat dog", 1.0),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", 1.0),
    (r"\begin{pmatrix}1&2\\3&5\end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", 0.0),
    # nothing that can be read
    (r"\frac{1}{", r"\sqrt{2}", 0.0),
    (r"\infty", r"\sqrt{2}", 0.0),
    ("NaN", r"\sqrt{2}", 0.0),
    ("x" * 5000, r"\sqrt{2}", 0.0),
    (r"\sum_{i=1}^{100000000} i", "7", 0.0),
]


@pytest.mark.parametrize(("said", "gold", "score"), MATHS)
def test_mathematics(said: str, gold: object, score: float) -> None:
    assert math_answer(["p"], [rf"so \boxed{{{said}}}."], answer=[gold]) == [score]


def test_a_short_text_may_be_an_answer() -> None:
    said = ["x^2 + 1", "$1 + x^2$", "x^2 + 2", "1"]
    assert math_answer(["p"] * 4, said, answer=["x^2 + 1"] * 4) == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("verifier", [exact_answer, math_answer])
@pytest.mark.parametrize("gold", ["", None, "  ", math.nan, math.inf, "<answer></answer>"])
def test_a_task_without_an_answer_is_unscored(
    verifier: Callable[..., list[float | None]], gold: object
) -> None:
    scores = verifier(["p", "p"], ["5", "5"], answer=[gold, "5"])
    if gold == "<answer></answer>":  # text like any other, which no "5" equals
        assert scores == [0.0, 1.0]
    else:
        assert scores == [None, 1.0]


@pytest.mark.parametrize("verifier", [exact_answer, math_answer])
def test_golds_as_worked_solutions(verifier: Callable[..., list[float | None]]) -> None:
    golds = ["3 * 4 = 12\n#### 12", r"so \boxed{12}", "then\nA: 12", "the answer is 12.", 12, 12.0]
    said = ["#### 12", "12", r"\boxed{12.0}", "<answer>12</answer>", "A: 12", "12"]
    assert verifier(["p"] * 6, said, answer=golds) == [1.0] * 6
    assert verifier(["p"] * 6, ["#### 3"] * 6, answer=golds) == [0.0] * 6


def test_an_answer_that_stalls_the_comparison_is_wrong() -> None:
    said = [r"\boxed{10^{10^{10}}}", r"\boxed{1000000000!}", r"\boxed{\sqrt{4}}"]
    with at_most(12):
        assert math_answer(["p"] * 3, said, answer=["7", "7", "2"], seconds=2.0) == [0.0, 0.0, 1.0]


def test_a_gold_that_stalls_the_comparison_is_unscored() -> None:
    scores = math_answer(["p"], [r"\boxed{\sqrt{4}}"], answer=["1000000000! + 1"], seconds=1.5)
    assert scores == [None]


@pytest.mark.parametrize(
    ("text", "value"),
    [("$1,000.50", 1000.5), ("-3/4", -0.75), ("1e3", 1000), ("5.", 5), (".5", 0.5), ("- 5", -5)],
)
def test_value_of(text: str, value: float) -> None:
    assert value_of(text) == value


@pytest.mark.parametrize("text", ["1,2", "1 2", "", "x", "1/0", "--5", "1e99999", "9" * 1001, "²"])
def test_no_value(text: str) -> None:
    assert value_of(text) is None


CHAT: list[Text] = [
    [{"role": "assistant", "content": "#### 5"}],
    [{"role": "assistant", "content": [{"type": "text", "text": "#### 5"}]}],
    [{"role": "assistant", "content": "#### 6"}, {"role": "tool", "content": "#### 5"}],
    [{"role": "assistant", "content": None}],
    [],
]


@pytest.mark.parametrize("verifier", [exact_answer, math_answer])
def test_chat_completions(verifier: Callable[..., list[float | None]]) -> None:
    assert verifier(CHAT, CHAT, answer=["5"] * 5) == [1.0, 1.0, 0.0, 0.0, 0.0]


def test_parts_of_a_text() -> None:
    assert plain([{"content": "a"}, {"content": [{"text": "b"}, {"text": "c"}]}]) == "a\nbc"
    assert spoken("a<think>b</think>c<think>d") == "ac"
    assert spoken("a</think>b</think>c") == "c"
    assert last_tag("<a>1</a> <a>2", "a") == "1"
    assert last_tag("<a><a>1</a></a>", "a") is None
    assert last_tag("</a>1<a>", "a") is None
    assert last_boxed(r"\boxed{\{1, \frac{2}{3}\}} }{") == r"\{1, \frac{2}{3}\}"
    assert last_boxed(r"\boxed{1} \boxed{2") == "1"


LONG = {
    "digits": "9" * SIZE,
    "thousands": "999," * (SIZE // 4),
    "exponent": "#### 1e" + "9" * SIZE,
    "newlines": "\n" * SIZE,
    "spaces": "answer is" + " " * SIZE + "x",
    "hashes": "####" * (SIZE // 4),
    "hash lines": "####\n" * (SIZE // 5),
    "colons": "A:\n" * (SIZE // 3),
    "dollars": "answer is $" * (SIZE // 11),
    "tags": "<answer>" * (SIZE // 8),
    "half tags": "<answer>" + "</answer" * (SIZE // 8),
    "ends of a turn": "<|im_end|></s> " * (SIZE // 15) + "x",
    "parameters": "<tool_call><function=f>" + "<parameter=a>" * (SIZE // 13) + "</tool_call>",
    "arguments": "<tool_call>f" + "<arg_key>a</arg_key>" * (SIZE // 20) + "</tool_call>",
    "arguments' spaces": "[TOOL_CALLS]f" + " " * SIZE,
    "addresses": "to=functions." + "a" * SIZE,
    "boxes": r"\boxed{" * (SIZE // 7),
    "wide boxes": ("\\boxed" + " " * 50) * (SIZE // 56),
    "closed boxes": r"\boxed{" * (SIZE // 8) + "}" * (SIZE // 8),
    "thoughts": "<think>" * (SIZE // 7),
    "calls": "<tool_call>" * (SIZE // 11),
    "fences": "```json\n" + " " * SIZE + "x",
    "fence lines": "```\n" * (SIZE // 4),
    "brackets": "[" * SIZE,
    "objects": '{"a":' * (SIZE // 5),
    "python": "f(a=" * (SIZE // 4),
    "minuses": "f(a=" + "-" * SIZE + "1)",
    "sum": "f(a=" + "+".join("1" * (SIZE // 2)) + ")",
    "less than": "<" * SIZE,
    "open tags": "<x" * (SIZE // 2),
    "surrogates": "\ud800" * SIZE,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_no_text_makes_a_verifier_slow(text: str) -> None:
    """At most 1.5 s of CPU time each, where a quadratic search takes many (0.02 s as a rule)."""
    call = [{"name": "f", "arguments": {"a": 1}}]
    language(["warm up: this loads the model of languages"], ["and this is a text of its own"])
    judges: dict[str, Callable[[], list[float | None]]] = {
        "exact": lambda: exact_answer(["p"], [text], answer=["5"]),
        "math": lambda: math_answer(["p"], [text], answer=["5"]),
        "json": lambda: json_schema(["p"], [text], schema=[{"type": "string"}]),
        "calls": lambda: tool_call(["p"], [text], answer=[call]),
        "words": lambda: repetition(["p"], [text]),
        "likeness": lambda: similarity(["p"], [text], answer=["five"]),
    }
    for name, judge in judges.items():
        with at_most(1.5, name):
            (score,) = judge()
        assert score is not None
        if name in ("exact", "math", "json", "calls"):
            assert score == 0.0, name
    with at_most(1.5, "language and code"):
        language(["this is a prompt in plain English"], [text])
        program_of("p", text)


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


WEATHER = [{"name": "weather", "arguments": {"city": "Bern", "days": 3}}]
TOOL = {
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    },
}
CALL = '{"name": "weather", "arguments": {"city": "Bern", "days": 3}}'


def message(*calls: tuple[str, Any]) -> Text:
    listed = [{"type": "function", "function": {"name": n, "arguments": a}} for n, a in calls]
    return [{"role": "assistant", "content": None, "tool_calls": listed}]


@pytest.mark.parametrize(
    ("said", "score"),
    [
        (CALL, 1.0),
        (f"[{CALL}]", 1.0),
        (f"```json\n{CALL}\n```", 1.0),
        (f"Let me look.\n<tool_call>\n{CALL}\n</tool_call>", 1.0),
        ('weather(city="Bern", days=3)', 1.0),
        ("[weather(days=3, city='bern')]", 1.0),
        ('```python\nweather(city="Bern", days=3)\n```', 1.0),
        ('{"name": "weather", "parameters": {"city": "Bern", "days": 3}}', 1.0),
        (message(("weather", '{"city": "Bern", "days": 3}')), 1.0),
        (message(("weather", {"city": "Bern", "days": 3})), 1.0),
        (f"<think>hm</think><tool_call>{CALL}</tool_call>", 1.0),
        (f"<think><tool_call>{CALL}</tool_call></think>no call", 0.0),
        (f"<tool_call>{CALL}", 0.0),
        (f"<tool_call><tool_call>{CALL}</tool_call></tool_call>", 0.0),
        (f"<tool_call>{CALL}</tool_call>" * 2, 0.0),
        (f"<tool_call>{CALL}</tool_call><tool_call>nonsense</tool_call>", 0.0),
        (f"[{CALL}, {CALL}]", 0.0),
        (message(*[("weather", {"city": "Bern", "days": 3})] * 2), 0.0),
        (message(("weather", '{"city": "Bern", "days": 3')), 0.0),
        (message(("weather", '{"city": "Bern", "days": 4, "days": 3}')), 0.0),
        ([{"role": "tool", "content": CALL}], 0.0),
        (CALL.replace("weather", "Weather"), 0.0),
        (CALL.replace("Bern", "Basel"), 0.0),
        (CALL.replace("3", "4"), 0.0),
        (CALL.replace("3", '"3"'), 0.0),
        (CALL.replace("3", "3.0"), 0.0),
        (CALL.replace("3", "true"), 0.0),
        (CALL.replace("3", "null"), 0.0),
        (CALL.replace("3", "[3]"), 0.0),
        (CALL.replace(', "days": 3', ""), 0.0),
        (CALL.replace("3}", '3, "more": 1}'), 0.0),
        ('weather("Bern", 3)', 0.0),
        ('weather(city="Bern", days=1 + 2)', 0.0),
        ('weather(city="Bern", days=4, days=3)', 0.0),
        ('weather(**{"city": "Bern", "days": 3})', 0.0),
        ('print(weather(city="Bern", days=3))', 0.0),
        ("", 0.0),
        ("weather", 0.0),
        ("[]", 0.0),
        ("\ud800(a=1)", 0.0),
    ],
)
def test_tool_call(said: Text, score: float) -> None:
    assert tool_call(["p"], [said], answer=[WEATHER], tools=[[TOOL]]) == [score]
    openai = [{"type": "function", "function": TOOL}]
    columns: dict[str, Any] = {"answer": [json.dumps(WEATHER)], "tools": [json.dumps(openai)]}
    assert tool_call(["p"], [said], **columns) == [score]


def test_parallel_calls_pair_in_any_order() -> None:
    answer = [{"f": {"a": [1, 2]}}, {"f": {"a": [1]}}, {"g": {}}]

    def score(*calls: tuple[str, Any]) -> float | None:
        return tool_call(["p"], [message(*calls)], answer=[answer])[0]

    assert score(("f", {"a": 1}), ("f", {"a": 2}), ("g", {})) == 1.0
    assert score(("g", {}), ("f", {"a": 2}), ("f", {"a": 1})) == 1.0
    assert score(("g", ""), ("f", {"a": 1}), ("f", {"a": 1})) == 1.0
    assert score(("f", {"a": 2}), ("f", {"a": 2}), ("g", {})) == 0.0
    assert score(("f", {"a": 1}), ("f", {"a": 2})) == 0.0
    assert score(("f", {"a": 1}), ("f", {"a": 2}), ("g", {}), ("g", {})) == 0.0
    many = [{"f": {"a": list(range(12))}}] * 11 + [{"f": {"a": [99]}}]
    said = message(*[("f", {"a": 0})] * 12)
    with at_most(1.0):
        assert tool_call(["p"], [said], answer=[many]) == [0.0]


A_AND_A = [{"name": "f", "arguments": {"q": "a"}}, {"name": "f", "arguments": {"q": "A"}}]


@pytest.mark.parametrize(
    ("said", "answer", "score"),
    [
        (["a", "A"], A_AND_A, 1.0),
        (["A", "a"], A_AND_A, 1.0),
        (["a", "a"], A_AND_A, 0.0),
        (["A", "A"], A_AND_A, 0.0),
        (["a.", "a."], A_AND_A, 0.0),
        (["a", "b"], A_AND_A, 0.0),
        (["a"], A_AND_A, 0.0),
        # punctuation alone tells them apart
        (["x-y", "xy"], [{"f": {"q": ["x-y"]}}, {"f": {"q": ["xy"]}}], 1.0),
        (["xy", "xy"], [{"f": {"q": ["x-y"]}}, {"f": {"q": ["xy"]}}], 0.0),
        # in a list, and in an object
        ([["a"], ["A"]], [{"f": {"q": [["a"]]}}, {"f": {"q": [["A"]]}}], 1.0),
        ([["a"], ["a"]], [{"f": {"q": [["a"]]}}, {"f": {"q": [["A"]]}}], 0.0),
        ([{"r": "a"}, {"r": "a"}], [{"f": {"q": [{"r": [c]}]}} for c in "aA"], 0.0),
        # the same call expected twice may be written in any way
        (["BERN", "bern"], [{"f": {"q": ["Bern"]}}] * 2, 1.0),
        # others that folding does not confuse
        (["BERN", "basel"], [{"f": {"q": ["Bern"]}}, {"f": {"q": ["Basel"]}}], 1.0),
        (["BERN", "bern"], [{"f": {"q": ["Bern"]}}, {"f": {"q": ["Basel"]}}], 0.0),
    ],
)
def test_calls_that_differ_by_case_only(said: list[Any], answer: Any, score: float) -> None:
    calls = message(*[("f", {"q": value}) for value in said])
    assert tool_call(["p"], [calls], answer=[answer]) == [score]


@pytest.mark.parametrize(
    ("said", "answer", "score"),
    [
        # nested objects: exact in one form, with accepted values in the other
        ({"q": {"ids": [1, 2]}}, [{"name": "f", "arguments": {"q": {"ids": [1, 2]}}}], 1.0),
        ({"q": {"ids": 1}}, [{"name": "f", "arguments": {"q": {"ids": [1, 2]}}}], 0.0),
        ({"q": {"ids": [2, 1]}}, [{"name": "f", "arguments": {"q": {"ids": [1, 2]}}}], 0.0),
        ({"q": {}}, [{"name": "f", "arguments": {"q": {"ids": ""}}}], 0.0),
        ({"q": {"ids": 1}}, [{"f": {"q": [{"ids": [1, 2]}]}}], 1.0),
        ({"q": {"ids": 3}}, [{"f": {"q": [{"ids": [1, 2]}]}}], 0.0),
        ({"q": {}}, [{"f": {"q": [{"ids": [1, ""]}]}}], 1.0),
        ({"q": {"ids": 1, "x": 1}}, [{"f": {"q": [{"ids": [1, ""]}]}}], 0.0),
        ({"q": [{"a": 1}]}, [{"f": {"q": [[{"a": [1]}]]}}], 1.0),
        ({"q": [{"a": 2}]}, [{"f": {"q": [[{"a": [1]}]]}}], 0.0),
        # left out
        ({}, [{"name": "f", "arguments": {"q": ""}}], 0.0),
        ({"q": ""}, [{"name": "f", "arguments": {"q": ""}}], 1.0),
        ({}, [{"f": {"q": [5, ""]}}], 1.0),
        ({}, [{"f": {"q": [5]}}], 0.0),
        ({}, [{"name": "f"}], 1.0),
        # values
        ({"q": "New-York, NY."}, [{"f": {"q": ["new york ny"]}}], 1.0),
        ({"q": "15"}, [{"f": {"q": ["1.5"]}}], 0.0),
        ({"q": "."}, [{"f": {"q": [","]}}], 0.0),
        ({"q": 5}, [{"f": {"q": [5.0]}}], 1.0),
        ({"q": 1}, [{"f": {"q": [True]}}], 0.0),
        ({"q": True}, [{"f": {"q": [1]}}], 0.0),
        ({"q": None}, [{"f": {"q": [0]}}], 0.0),
        ({"q": None}, [{"f": {"q": [None]}}], 1.0),
    ],
)
def test_arguments(said: dict[str, Any], answer: Any, score: float) -> None:
    assert tool_call(["p"], [message(("f", said))], answer=[answer]) == [score]


@pytest.mark.parametrize(
    "answer",
    [
        None, "", [], "[", "[5]", [5], 5, [{"f": 5}], [{"f": {"a": 5}}],
        # accepted values that nothing meets
        [{"f": {"a": []}}], [{"f": {"a": [5], "b": []}}], [{"f": {"a": [{"b": []}]}}],
        [{"f": {"a": "5"}}], [{"f": {"a": {"b": [5]}}}],
    ],
)  # fmt: skip
def test_an_answer_that_is_no_call_is_unscored(answer: Any) -> None:
    scores = tool_call(["p"] * 2, ["f(a=5)"] * 2, answer=[answer, [{"f": {"a": [5]}}]])
    assert scores == [None, 1.0]


def test_broken_tools_are_unscored() -> None:
    answer = [{"f": {"a": [5]}}]
    tools: list[Any] = ["{", [{}], [{"name": "f", "parameters": {"properties": {"a": True}}}], None]
    scores = tool_call(["p"] * 4, ["f(a=5)"] * 4, answer=[answer] * 4, tools=tools)
    assert scores == [None, None, 1.0, 1.0]


def test_nothing_of_a_call_is_evaluated() -> None:
    assert calls_of("__import__('os').system(command='false')") is None
    assert calls_of("os.system(command='false')") == [Call("os.system", {"command": "false"})]
    assert calls_of("f(a=__import__('os').getpid())") is None
    assert calls_of("f(a=10**10**10)") is None


class TestStyle:
    def test_regex(self) -> None:
        said = ["a\nb", "ab", "xa\nby"]
        assert regex(["p"] * 3, said, pattern="a.b") == [1.0, 0.0, 1.0]
        assert regex(["p"] * 3, said, pattern="a.b", whole=True) == [1.0, 0.0, 0.0]

    def test_overlong(self) -> None:
        ids = [[1] * n for n in (0, 60, 70, 80, 100, 500)]
        said = [""] * 6
        scores = overlong(said, said, most=100, buffer=40, completion_ids=ids)
        assert scores == [0.0, 0.0, -0.25, -0.5, -1.0, -1.0]
        assert [overlong_penalty(n, 100, 0) for n in (99, 100, 101)] == [0.0, 0.0, -1.0]

    def test_lengths_in_tokens_need_tokens(self) -> None:
        with pytest.raises(ValueError, match="completion_ids"):
            length(["p"], ["a b"], least=1, most=2)

    def test_length(self) -> None:
        said = ["a", "a b", "a b c d", "a b c d e", "a b c d e f g h"]
        options: dict[str, Any] = {"least": 2, "most": 4, "unit": "words"}
        assert length(said, said, **options) == [0.0, 1.0, 1.0, 0.0, 0.0]
        assert length(said, said, **options, fall=4) == [0.75, 1.0, 1.0, 0.75, 0.0]
        characters = length(said, said, least=1, most=3, unit="characters")
        assert characters == [1.0, 1.0, 0.0, 0.0, 0.0]

    def test_cosine_length(self) -> None:
        ids = [[1] * n for n in (0, 50, 100, 200, 25)]
        scores = cosine_length([""] * 5, [""] * 5, most=100, completion_ids=ids)
        # 0.5 + 0.25 (1 + cos(pi n / 100)), where cos(pi / 4) is 1 / sqrt(2)
        expected = [1.0, 0.75, 0.5, 0.5, 0.75 + 0.25 / math.sqrt(2)]
        assert scores == pytest.approx(expected, abs=1e-12)

    def test_repetition(self) -> None:
        # "a b c" three times: 8 bigrams, of which ab, bc, ca are new
        said = ["a b c a b c a b c", "a b c d", "a", "", "a a a a a"]
        assert repetition(said, said, n=2) == [-0.625, 0.0, 0.0, 0.0, -0.75]
        # and 6 four-grams, of which abca, bcab, cabc are new
        assert repetition(said, said)[0] == -0.5

    def test_similarity(self) -> None:
        # 2 * longest common subsequence / both lengths
        said = ["abcd", "abxd", "", " abcd ", "wxyz"]
        scores = similarity(said, said, answer=["abcd"] * 5)
        assert scores == pytest.approx([1.0, 0.75, 0.0, 1.0, 0.0])
        assert similarity(["p"], ["a"], answer=[None]) == [None]

    def test_language(self) -> None:
        english = "What is the best way to cook potatoes for dinner tonight?"
        german = "Am besten werden die Kartoffeln zuerst gekocht und danach gebraten."
        assert language([english, english, german], [english, german, german]) == [1.0, 0.0, 1.0]
        assert language([english] * 2, [english, german], code="de") == [0.0, 1.0]
        assert language([english, "7 * 8 = ?"], ["56", english]) == [None, None]
        assert language(["7"], [english], code="en") == [1.0]
        fenced = f"{german}\n```python\nprint('the words of this code are all English ones')\n```"
        assert language([german], [fenced]) == [1.0]


class TestCodeIsRead:
    def test_program_of(self) -> None:
        prompt = "def f(x):\n    '''Twice x.'''\n"
        assert program_of(prompt, "    return 2 * x") == f"{prompt.rstrip()}\n    return 2 * x"
        assert (
            program_of("Write f.", "So:\n```python\ny = 1\n```\nor\n```\nx = 1\n```") == "x = 1\n"
        )
        assert program_of("Write f.", "```python\nx = 1") == "x = 1"
        assert program_of("Write f.", "x = 1") == "x = 1"

    def test_tests_in_all_their_forms(self) -> None:
        twice = "```python\ndef f(x):\n    return 2 * x\n```"
        asserted = ["assert f(2) == 4", "assert f(3) == 6"]
        tests: list[Any] = [asserted, json.dumps(asserted), "\n".join(asserted), None, ""]
        said = [twice] * 5
        assert code_tests([""] * 5, said, tests=tests) == [1.0, 1.0, 1.0, None, None]
        thought = [f"<think>{twice}</think>", f"<think>{twice}", f"<think>2x</think>{twice}"]
        assert code_tests([""] * 3, thought, tests=[asserted] * 3) == [0.0, 0.0, 1.0]
        half = twice.replace("2 * x", "4")
        assert code_tests([""], [half], tests=[asserted], partial=True) == [0.5]
        assert code_tests([""], [half], tests=[asserted]) == [0.0]
