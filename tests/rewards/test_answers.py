"""Answers as people and models write them: each way of writing with the right answer, and beside it
a planted wrong one."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest

from strop.rewards.answer.clause import clause
from strop.rewards.answer.notation import latex_of
from strop.rewards.answer.number import Quantity, quantity_of, rounds
from strop.rewards.answer.read import final_answer, stated_answer
from strop.rewards.exact import exact_answer
from strop.rewards.math import math_answer

BOTH = (exact_answer, math_answer)

READ: list[tuple[str, str | None]] = [
    # the clause, without what explains it
    ("The answer is 72, in total", "72"),
    ("The answer is about 15.", "15"),
    ("The answer is New York.", "New York"),
    ("The answer is $72,000, as shown", "$72,000"),
    ("The answer is (72)", "(72)"),
    ("The answer is x = 5", "x = 5"),
    ("The answer is 12 + 3 = 15", "12 + 3 = 15"),
    ("The answer is 18 because 3 + $15", "18"),
    ("The answer is $18 because 3 + $15", "$18"),
    ("The answer is 72 (twelve times six).", "72"),
    ("The answer is 72 since 9 * 8 = 72.", "72"),
    ("The answer is 72 - as we saw above", "72"),
    ("The answer is 3.5.", "3.5"),
    ("The answer is 3.5", "3.5"),
    ("The answer is 72 apples in the basket.", "72 apples"),
    ("The answer is 5 cm, which is short.", "5 cm"),
    ("The answer is the number of apples, which is 72.", "72"),
    ("The answer is Dr. Smith.", "Dr. Smith"),
    ("The answer is Paris, France.", "Paris, France"),
    ("The answer is Paris, as shown.", "Paris"),
    ("The answer is option B.", "B"),
    ("The answer is: $x^2 + 1$.", "x^2 + 1"),
    ("The answer is\n\\[ x^2 + 1 \\]", "x^2 + 1"),
    ("The answer is \\(\\frac{1}{2}\\), as above", "\\frac{1}{2}"),
    ("The answer is **72** because", "72"),
    ("**The answer is 72.**", "72"),
    ("The answer is approximately $3.14$.", "3.14"),
    ("the final answer to the question is therefore 72", "72"),
    ("The answers are 5 and 6.", "5 and 6"),
    ("the answer should be 72", "72"),
    ("So 72 is the answer.", "72"),
    ("I say that $x+1$ is our final answer", "x+1"),
    # with a colon, or as a heading
    ("Answer: B", "B"),
    ("**Answer:** B", "B"),
    ("**Answer**: B", "B"),
    ("Answer (in dollars): 72", "72"),
    ("Final Answer\n\n72", "72"),
    ("**Final Answer**\n\n$72$", "72"),
    ("### Answer\n72 dollars", "72 dollars"),
    ("Answer: The total is 72.", "72"),
    ("Answer: Paris is the capital", "Paris is the capital"),
    ("The correct option is (C).", "(C)"),
    # the last one that names an answer
    ("The answer is 5. No: the answer is 6.", "6"),
    ("Answer: 5\n\nQuestion: why?\nAnswer: 7", "7"),
    ("The answer is 12 as 3 * 4. Hence 13 steps.", "12"),
    # several answers in one stay several
    ("The answer is 12, or maybe 13", "12, or maybe 13"),
    ("The answer is 5 or 6.", "5 or 6"),
    ("The answer is either 5 or 6", "either 5 or 6"),
    ("The answer is $5$ or $6$.", "5 or 6"),
    ("The answer is A, B, C", "A, B, C"),
    ("The answer is 12. Or maybe 13.", "12, Or maybe 13."),
    ("The answer is 12 if x > 3, otherwise 13", "12 if x > 3, otherwise 13"),
    ("The answer is 12 - no wait, 13", "12 - no wait, 13"),
    # denials, questions, conditions, talk
    ("The answer is not 5", ""),
    ("The answer is not 5 but 6", "6"),
    ("The answer isn't 5.", ""),
    ("The answer is definitely not 5", ""),
    ("The answer cannot be 5", ""),
    ("I do not think the answer is 5", ""),
    ("A wrong answer is 5", ""),
    ("The answer is 6. The answer is not 5.", "6"),
    ("Is the answer 5?", None),
    ("The answer is 5? Let me see", None),
    ("If the answer is 5 then I am wrong", None),
    ("Answer: Let me think about it", None),
    ("The answers to these questions vary", None),
    ("we get 7", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "said"), READ)
def test_what_is_read(text: str, said: str | None) -> None:
    assert stated_answer(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("so 7 3/4", "7 3/4"),
        ("we get 12, then 3/4", "3/4"),
        ("it is 2 million", "2 million"),
        ("it is 3.5 million dollars", "3.5 million"),
        ("The answer is not 5", ""),
        ("If the answer is 5 then 7", "7"),
        ("no number", None),
    ],
)
def test_the_last_number(text: str, said: str | None) -> None:
    assert final_answer(text) == said


def test_a_clause_of_a_long_text() -> None:
    assert clause("5" + " and so on" * 1000) is not None
    assert stated_answer("the answer is not 5. " * 10_000) == ""


SCORED: list[tuple[str, str, float]] = [
    ("The answer is 72, in total", "72", 1.0),
    ("The answer is 72, in total", "73", 0.0),
    ("The answer is about 15.", "15", 1.0),
    ("The answer is about 15.", "16", 0.0),
    ("The answer is New York.", "New York", 1.0),
    ("The answer is New York.", "York", 0.0),
    ("The answer is New York.", "New", 0.0),
    ("Answer: B", "B", 1.0),
    ("Answer: B", "A", 0.0),
    ("Answer: (B) 72", "B", 1.0),
    ("Answer: (B) 72", "72", 1.0),
    ("Answer: (B) 72", "A", 0.0),
    ("Answer: (A) 72 (B) 73", "72", 0.0),
    ("Answer: (A) 72 (B) 73", "A", 0.0),
    ("The answer is $72,000, as shown", "72000", 1.0),
    ("The answer is $72,000, as shown", "72", 0.0),
    ("The answer is (72)", "72", 1.0),
    ("The answer is (72, 73)", "72", 0.0),
    ("The answer is x = 5", "5", 1.0),
    ("The answer is x = 5", "x = 5", 1.0),
    ("The answer is y = 5", "x = 5", 0.0),
    ("The answer is 5", "x = 5", 1.0),
    ("The answer is 5 = x", "5", 1.0),
    ("The answer is x = 5 = 6", "6", 0.0),
    ("The answer is x = 5 = 6", "5", 0.0),
    ("The answer is 12 + 3 = 15", "15", 1.0),
    ("The answer is 12 + 3 = 15", "12", 0.0),
    ("The answer is 12 + 3 = 15", "3", 0.0),
    # several answers are none
    ("The answer is 12, or maybe 13", "12", 0.0),
    ("The answer is 12, or maybe 13", "13", 0.0),
    ("The answer is 12. Or maybe 13.", "12", 0.0),
    ("The answer is $12$ or $13$", "12", 0.0),
    ("The answer is 12 or 13", "12", 0.0),
    ("The answer is 12 and 13", "12", 0.0),
    ("The answer is 12/13 or so, or 14", "12/13", 0.0),
    ("The answer is 12, 13, 14", "13", 0.0),
    ("The answer is 12, maybe 13", "12", 0.0),
    ("The answer is 12, possibly more", "12", 0.0),
    ("The answer is 12 because 13 is odd or maybe 14", "12", 0.0),
    ("The answer is between 12 and 13", "12", 0.0),
    ("The answer is 12 to 13", "12", 0.0),
    ("The answer is 12-13", "12", 0.0),
    ("The answer is at least 12", "12", 0.0),
    ("The answer is more than 12", "12", 0.0),
    ("The answer is A or B", "A", 0.0),
    ("The answer is B, or possibly C", "B", 0.0),
    ("The answer is A, B, C or D", "A", 0.0),
    ("The answer is Paris or London", "Paris", 0.0),
    ("The answer is Paris, or London", "Paris", 0.0),
    ("The answer is Paris, London, Rome", "Paris", 0.0),
    ("Answer: 5\nAnswer: 6", "5", 0.0),
    ("Answer: 5\nAnswer: 6", "6", 1.0),
    ("The answer is 5. The answer is 6.", "5", 0.0),
    ("The answer is 5. The answer is 6.", "6", 1.0),
    ("The answer is 5, no, 6", "5", 0.0),
    ("The answer is 5; the answer is 6", "5", 0.0),
    # denials
    ("The answer is not 5", "5", 0.0),
    ("The answer is not 5 but 6", "6", 1.0),
    ("The answer is not 5 but 6", "5", 0.0),
    ("The answer is certainly not 5.", "5", 0.0),
    ("The answer isn't 5.", "5", 0.0),
    ("The answer is never 5", "5", 0.0),
    ("I don't think that the answer is 5", "5", 0.0),
    ("It is not true that the answer is 5", "5", 0.0),
    ("The answer is wrong if you say 5", "5", 0.0),
    ("The incorrect answer is 5", "5", 0.0),
    # numbers in words around them
    ("The answer is 5 apples", "5", 1.0),
    ("The answer is 5 apples and 6 pears", "5", 0.0),
    ("The answer is 5 million", "5", 0.0),
    ("The answer is 5 million", "5000000", 1.0),
    ("The answer is 3.5 million dollars", "3500000", 1.0),
    ("The answer is Rs. 500", "500", 1.0),
    ("The answer is Rs. 500", "50", 0.0),
    ("The answer is USD 5", "5", 1.0),
    ("It is false that the answer is 5", "5", 0.0),
    ("The answer is 5 dozen", "60", 1.0),
    ("The answer is 5 thousandths", "5", 0.0),
    ("The answer is 5 hundredths", "5", 0.0),
    ("The answer is 5 squared", "5", 0.0),
    ("The answer is 5 times as many as 3", "5", 0.0),
    ("The answer is 5 factorial", "5", 0.0),
    ("The answer is 5 halves", "5", 0.0),
    ("The answer is 5!", "5", 1.0),
    ("The answer is 7 3/4", "31/4", 1.0),
    ("The answer is 7 3/4", "7", 0.0),
    ("The answer is 7 3/4", "3/4", 0.0),
    ("The answer is -7 3/4", "-31/4", 1.0),
    ("The answer is -7 3/4", "-25/4", 0.0),
    ("so we need 7 3/4", "7.75", 1.0),
    ("so we need 7 3/4", "0.75", 0.0),
    ("The answer is 28 pct", "28%", 1.0),
    ("The answer is 28 percent", "28", 1.0),
    ("The answer is 28 pct", "29%", 0.0),
    ("The answer is 2\u00bd", "5/2", 1.0),
    ("The answer is \u00bd", "0.5", 1.0),
    ("The answer is 2\u00bd", "2", 0.0),
    ("The answer is 5 cm", "5", 1.0),
    ("The answer is 5 centimeters", "5 cm", 1.0),
    ("The answer is 5 cm", "5 m", 0.0),
    ("The answer is 5~\\text{cm}", "5", 1.0),
    ("The answer is \u22125", "-5", 1.0),
    ("The answer is \u22125", "5", 0.0),
    # decimals and fractions: one rule
    ("The answer is 0.5", "1/2", 1.0),
    ("The answer is 0.333333", "1/3", 1.0),
    ("The answer is 1/3", "0.333333", 1.0),
    ("The answer is 0.33333333333", "1/3", 1.0),
    ("The answer is 0.666667", "2/3", 1.0),
    ("The answer is 0.666666", "2/3", 1.0),
    ("The answer is 0.66667", "2/3", 0.0),
    ("The answer is 0.666668", "2/3", 0.0),
    ("The answer is 0.333334", "1/3", 0.0),
    ("The answer is 0.33", "1/3", 0.0),
    ("The answer is 0.3", "1/3", 0.0),
    ("The answer is -0.333333", "1/3", 0.0),
    ("The answer is 0.333333", "0.3333333", 0.0),
    ("The answer is 0.1250001", "1/8", 0.0),
    ("The answer is 142.857143", "1000/7", 1.0),
    ("The answer is 142.857", "1000/7", 1.0),
    ("The answer is 142.86", "1000/7", 0.0),
    ("The answer is 0.0000333333", "1/30000", 1.0),
    ("The answer is 0.0000", "1/30000", 0.0),
]


@pytest.mark.parametrize("verifier", BOTH)
@pytest.mark.parametrize(("said", "gold", "score"), SCORED)
def test_scores(
    verifier: Callable[..., list[float | None]], said: str, gold: str, score: float
) -> None:
    assert verifier(["p"], [said], answer=[gold]) == [score]


MATHS: list[tuple[str, str, float]] = [
    # compared exactly, or relatively
    (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}", 0.0),
    (r"\frac{1}{2^{98}}", "2^{-98}", 1.0),
    (r"\frac{1}{2004!}", r"\frac{1}{2006!}", 0.0),
    (r"\frac{2005 \cdot 2006}{2006!}", r"\frac{1}{2004!}", 1.0),
    ("e^{-50}", "e^{-60}", 0.0),
    ("e^{-50}", r"\frac{1}{e^{50}}", 1.0),
    ("x = e^{-50}", "x = e^{-60}", 0.0),
    ("(e^{-50}, 1)", "(e^{-60}, 1)", 0.0),
    ("(e^{-50}, 1)", r"(\frac{1}{e^{50}}, 1)", 1.0),
    (r"\{e^{-50}\}", r"\{e^{-60}\}", 0.0),
    ("x + e^{-50}", "x + e^{-60}", 0.0),
    ("x < e^{-50}", "x < e^{-60}", 0.0),
    ("0", "e^{-60}", 0.0),
    ("0", r"\frac{1}{2004!}", 0.0),
    (r"\sqrt{2}\cdot\sqrt{2} - 2", "0", 1.0),
    (r"\begin{pmatrix}e^{-50}\\1\end{pmatrix}", r"\begin{pmatrix}e^{-60}\\1\end{pmatrix}", 0.0),
    ("10^{40} + 1", "10^{40}", 0.0),
    (r"\sqrt{2} + 10^{-20}", r"\sqrt{2}", 0.0),
    # sets, tuples, lists
    ("(1,3)", r"\{1,3\}", 0.0),
    (r"\{1,3\}", "(1,3)", 0.0),
    ("(3,1)", r"\{1,3\}", 0.0),
    ("(1,2,3)", r"\{1,2,3\}", 0.0),
    (r"\left\{1,3\right\}", r"\{3,1\}", 1.0),
    (r"\{1,1,3\}", r"\{1,3\}", 1.0),
    ("1, 3", r"\{1,3\}", 1.0),
    ("12, 12", "12", 0.0),
    ("1,1,2", "1,2", 0.0),
    ("1, 2", "1,1,2", 0.0),
    ("2,1,1", "1,1,2", 1.0),
    (r"\frac12, 0.5", r"\frac12", 0.0),
    ("1, 2, 3", "1, 2", 0.0),
    ("1 and 2", "2, 1", 1.0),
    ("(1, 2)", "1, 2", 1.0),
    ("(1, 2)", "2, 1", 0.0),
    ("2, 1", "(1, 2)", 0.0),
    ("(1, 2, 3)", "1, 2, 3", 1.0),
    ("(1, 3, 2)", "1, 2, 3", 0.0),
    (r"1,2,\ldots,5", "1,2,3,4,5", 0.0),
    (r"1,2,\ldots", "1,2", 0.0),
    ("1, 2, ...", "1,2", 0.0),
    (r"1,2,\ldots,n", r"1, 2, \dots, n", 1.0),
    (r"1,2,\ldots,n", r"1, 2, \dots, m", 0.0),
    (r"\langle 1,2\rangle", "(1,2)", 1.0),
    (r"\left\langle 1,2\right\rangle", "(1,2)", 1.0),
    (r"\langle 2,1\rangle", "(1,2)", 0.0),
    ("(5,1)", "(3,2)", 0.0),
    (r"\{1,2,3\} \cap \{2,3,4\}", r"\{2,3\}", 1.0),
    (r"\{1,2,3\} \cap \{2,3,4\}", r"\{1,2\}", 0.0),
    (r"\{1,2,3\} \setminus \{2\}", r"\{1,3\}", 1.0),
    (r"\{1,2,3\} \setminus \{2\}", r"\{1,2\}", 0.0),
    (r"[0,3]\cap[2,5]", "[2,3]", 1.0),
    (r"[0,3]\cap[2,5]", "[0,5]", 0.0),
    (r"\{1\} \cup \{2\}", r"\{1,2\}", 1.0),
    (r"\mathbb{R} \setminus \{0\}", r"(-\infty,0) \cup (0,\infty)", 1.0),
    (r"\mathbb{R} \setminus \{1\}", r"(-\infty,0) \cup (0,\infty)", 0.0),
    # bases
    ("101_2", "101_8", 0.0),
    ("101_{2}", "101_2", 1.0),
    ("101_2", "101", 1.0),
    ("5", "101_2", 0.0),
    ("5_{10}", "101_2", 1.0),
    ("102_2", "101_2", 0.0),
    # names
    ("x'", "x", 0.0),
    ("x", "x'", 0.0),
    (r"x^{\prime}", "x'", 1.0),
    ("x''", "x'", 0.0),
    ("x=6=5", "5", 0.0),
    ("x=6=5", "6", 0.0),
    ("x=2+3=5", "5", 1.0),
    ("x=2+3=6", "5", 0.0),
    ("2x + z = 1", "1", 1.0),
    ("1", "2x + z = 1", 0.0),
    ("x_1 = 5", "x_2 = 5", 0.0),
    ("n = 1, 2, 3", "n = 2, 3, 4", 0.0),
    ("D = (0, 1)", "D = (0, 2)", 0.0),
    ("D = (0, 1)", "D = (0, 1)", 1.0),
    ("5 < 3", "7 < 2", 0.0),
    ("a = 4, b = 5", "b = 5, a = 4", 1.0),
    ("a = 5, b = 4", "b = 5, a = 4", 0.0),
    # numbers
    ("7 3/4", "31/4", 1.0),
    ("31/4", "7 3/4", 1.0),
    ("7 3/4", "21/4", 0.0),
    (r"7\frac{3}{4}", "7 3/4", 1.0),
    ("2 million", "2000000", 1.0),
    ("2 million", r"2 \times 10^6", 1.0),
    (r"3.5\text{ million}", "3500000", 1.0),
    ("3.5 million", "3.5", 0.0),
    ("2 million", "2 billion", 0.0),
    ("28 pct", r"28\%", 1.0),
    ("28 pct", "0.28", 1.0),
    ("28 pct", "2.8", 0.0),
    (r"50\%", r"0.5\%", 0.0),
    (r"0.1\overline{6}", r"\frac16", 1.0),
    (r"0.\overline{3}", r"\frac13", 1.0),
    (r"0.\overline{3}", "0.3", 0.0),
    ("3.14159", r"\pi", 1.0),
    ("3.14160", r"\pi", 0.0),
    ("3.1416", r"\pi", 0.0),
    ("1.41421", r"\sqrt{2}", 1.0),
    ("1.41422", r"\sqrt{2}", 0.0),
    (r"\sqrt{2} \approx 1.41", r"\sqrt{2}", 1.0),
    (r"\sqrt{3} \approx 1.41", r"\sqrt{2}", 0.0),
    ("x \u2248 1.41", "1.41", 1.0),
    ("0.5x", r"\frac{x}{2}", 1.0),
    ("0.1x + 0.2x", "0.3x", 1.0),
    ("0.50001x", r"\frac{x}{2}", 0.0),
    # as typed
    ("pi/2", r"\frac{\pi}{2}", 1.0),
    ("pi/3", r"\frac{\pi}{2}", 0.0),
    ("2pi", r"2\pi", 1.0),
    ("2pi", "2", 0.0),
    (r"\frac{pi}{2}", r"\frac{\pi}{2}", 1.0),
    ("sqrt(3)/2", r"\frac{\sqrt{3}}{2}", 1.0),
    ("sqrt((x+1))", r"\sqrt{x+1}", 1.0),
    ("sin(x)", r"\sin x", 1.0),
    ("sin(x)", r"\cos x", 0.0),
    ("ln(2)", r"\ln 2", 1.0),
    ("x**2", "x^2", 1.0),
    ("x^(n+1)", "x^{n+1}", 1.0),
    ("-2 <= x <= 7", "[-2,7]", 1.0),
    ("-2 <= x < 7", "[-2,7]", 0.0),
    ("[-2,7]", r"-2 \le x \le 7", 1.0),
    ("(-2,7)", r"-2 \le x \le 7", 0.0),
    ("x<3", r"(-\infty,3)", 1.0),
    ("x < 3", "(-inf, 3)", 1.0),
    ("x <= 3", "(-inf, 3)", 0.0),
    ("x > 3", "(-inf, 3)", 0.0),
    (r"x \in [-2,7]", "[-2,7]", 1.0),
    ("\u221a3", r"\sqrt{3}", 1.0),
    ("\u221a3", r"\sqrt{2}", 0.0),
    ("2\u221a3", r"2\sqrt{3}", 1.0),
    ("\u221a(x+1)", r"\sqrt{x+1}", 1.0),
    ("\u00bd", r"\frac12", 1.0),
    ("2\u00bd", r"\frac52", 1.0),
    ("\u00bdx", r"\frac{x}{2}", 1.0),
    ("x\u00b2", "x^2", 1.0),
    ("x\u00b3", "x^2", 0.0),
    ("x\u00b9\u2070", "x^{10}", 1.0),
    ("\u221e", r"\infty", 1.0),
    ("-\u221e", r"\infty", 0.0),
    ("x \u2264 3", r"x \le 3", 1.0),
    ("3\u00d710\u2075", "300000", 1.0),
    # as TeX reads it
    (r"\mathrm e", "e", 1.0),
    (r"\mathrm{e}^2", "e^2", 1.0),
    (r"\mathrm e^3", "e^2", 0.0),
    (r"2 + 3\mathrm i", "2 + 3i", 1.0),
    (r"\mathrm{i}", "i", 1.0),
    (r"-\mathrm{i}", "i", 0.0),
    (r"e^{i\pi}", "-1", 1.0),
    ("e^{i pi}", "-1", 1.0),
    ("-1", r"e^{\pi i}", 1.0),
    (r"e^{i\pi}", "1", 0.0),
    ("i^2", "-1", 1.0),
    (r"\sum_{i=1}^{3} i", "6", 1.0),
    (r"\frac ab c", r"\frac{ac}{b}", 1.0),
    (r"\frac ab c", r"\frac{a}{bc}", 0.0),
    (r"\sqrt ab", r"b\sqrt{a}", 1.0),
    (r"\sqrt ab", r"\sqrt{ab}", 0.0),
    (r"\frac\pi2", r"\pi/2", 1.0),
    (r"\frac1{\sqrt n}", r"\sqrt{1/n}", 1.0),
    (r"\frac1{\sqrt n}", r"\sqrt{n}", 0.0),
    (r"\sqrt{x^2}", "x", 0.0),
    (r"\sqrt{x^2}", "|x|", 1.0),
    (r"11,\! 111,\! 111", "11111111", 1.0),
    # units
    (r"5~\text{cm}", "5", 1.0),
    (r"5~\text{cm}", r"5~\text{m}", 0.0),
    (r"5\,\mathrm{cm}", "5 cm", 1.0),
    (r"2\pi~\text{cm}", r"2\pi", 1.0),
    (r"2\pi~\text{cm}", r"2\pi \text{ m}", 0.0),
    (r"2\pi~\text{cm}", r"3\pi", 0.0),
    (r"\frac{1}{3} \text{ meters}", r"\frac13", 1.0),
    (r"2 \text{ and } 3", "2", 0.0),
    # nothing that is said besides
    (r"\foo{\frac{1}{3}}}", r"\frac{1}{3}", 0.0),
    (r"\text{dog } 5", "5", 0.0),
    ("5 7", "57", 0.0),
    ("(5 7)", "57", 0.0),
    ("the sum of the first five", "6", 0.0),
]


@pytest.mark.parametrize(("said", "gold", "score"), MATHS)
def test_mathematics(said: str, gold: str, score: float) -> None:
    assert math_answer(["p"], [rf"so \boxed{{{said}}}."], answer=[gold]) == [score]


@pytest.mark.parametrize("gold", sorted({gold for _, gold, _ in MATHS}))
def test_every_gold_equals_itself(gold: str) -> None:
    assert math_answer(["p"], [rf"so \boxed{{{gold}}}."], answer=[gold]) == [1.0]


@pytest.mark.parametrize(
    ("decimal", "exact", "so"),
    [
        ("0.333333", Fraction(1, 3), True),
        ("0.33333", Fraction(1, 3), False),
        ("0.333334", Fraction(1, 3), False),
        ("0.666667", Fraction(2, 3), True),
        ("0.666666", Fraction(2, 3), True),
        ("-0.666667", Fraction(-2, 3), True),
        ("-0.666667", Fraction(2, 3), False),
        ("0.125", Fraction(1, 8), False),
        ("0.1250000001", Fraction(1, 8), False),
        ("333333", Fraction(10**6, 3), True),
    ],
)
def test_rounds(decimal: str, exact: Fraction, so: bool) -> None:
    assert rounds(Fraction(decimal), exact) is so


def test_quantities() -> None:
    assert quantity_of("x = 5 cm") == Quantity(Fraction(5), "centimeter", "x")
    assert quantity_of("12 + 3 = 15") == Quantity(Fraction(15))
    assert quantity_of("x = 6 = 5") is None
    assert quantity_of("2x + z = 1") is None
    assert quantity_of("2x + z = 1", any_left=True) == Quantity(Fraction(1))
    assert quantity_of("a = 1, b = 2") is None
    assert quantity_of("5 and 6") is None


@pytest.mark.parametrize(
    ("typed", "latex"),
    [
        ("\u221a3/2", r"\sqrt{3}/2"),
        (r"\frac ab c", r"\frac{a}{b} c"),
        (r"\frac{\frac12}3", r"\frac{\frac{1}{2}}{3}"),
        ("7 3/4", r"7\frac{3}{4}"),
        ("-2 <= x", r"-2 \le x"),
        (r"\text{pi}", r"\text{pi}"),
    ],
)
def test_notation(typed: str, latex: str) -> None:
    assert latex_of(typed) == latex
