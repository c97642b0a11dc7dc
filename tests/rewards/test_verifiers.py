"""Answers and mathematics by hand: what is right earns 1.0, near misses 0.0, and cheats nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from strop.rewards.answer.number import value_of
from strop.rewards.code import program_of
from strop.rewards.exact import exact_answer
from strop.rewards.math import math_answer
from strop.rewards.schema import json_schema
from strop.rewards.style import language, repetition, similarity
from strop.rewards.tools import tool_call
from strop.text.parse import last_boxed, last_tag, plain, spoken
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
