"""Rewards for style, and code found in a text."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from strop.rewards.code import code_tests, program_of
from strop.rewards.style import (
    cosine_length,
    language,
    length,
    overlong,
    regex,
    repetition,
    similarity,
)
from strop.text.lengths import overlong_penalty


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
