"""Tokens as they come, in parts: nothing that was shown is taken back, and the parts add up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.serve.protocol.speaking import Detokenizer, Speaker
from strop.text.speech import Delta, Written

TOOLS: Any = [{"type": "function", "function": {"name": "add", "parameters": {
    "type": "object", "properties": {"a": {"type": "integer"}}}}}]  # fmt: skip


class Bytes:
    """A tokenizer whose tokens are bytes, so that characters come in pieces."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return bytes(ids).decode("utf-8", "replace")


def speaker(**options: Any) -> Speaker:
    return Speaker(Detokenizer(Bytes(), frozenset(), frozenset()), **options)


def spoken(text: str, size: int, **options: Any) -> tuple[list[Delta], Written]:
    """A text that comes `size` tokens at a time."""
    one = speaker(**options)
    ids = text.encode()
    deltas = [d for n in range(0, len(ids), size) for d in one.feed(ids[n : n + size])]
    return [*deltas, *one.end()], one.written


def part(deltas: list[Delta], name: str) -> str:
    return "".join(delta.text for delta in deltas if delta.part == name)


@given(st.text(max_size=60), st.integers(1, 7))
def test_without_marks_all_is_said(text: str, size: int) -> None:
    text = text.replace("<", "").strip()
    deltas, written = spoken(text, size)
    assert part(deltas, "content") == written.content == text
    assert all(delta.text for delta in deltas)


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_a_character_is_shown_once_it_is_whole(size: int) -> None:
    deltas, _ = spoken("Zürich → 東京 😀", size)
    assert part(deltas, "content") == "Zürich → 東京 😀"
    assert all("\ufffd" not in delta.text for delta in deltas)


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_thoughts_and_words(size: int) -> None:
    deltas, written = spoken("<think>I add.</think>\n\n7 < 8", size)
    assert part(deltas, "reasoning_content") == written.reasoning == "I add."
    assert part(deltas, "content") == written.content == "7 < 8"


@pytest.mark.parametrize("size", [1, 4, 100])
def test_a_thought_that_the_prompt_opened(size: int) -> None:
    deltas, written = spoken("I add.\n</think>\n\n7", size, opened="<think>\n")
    assert written == Written("I add.\n", "7", ())
    assert part(deltas, "reasoning_content") == "I add.\n"


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("text", [
    'Let me.\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>',
    'Let me.\n[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}}]',
])  # fmt: skip
def test_a_call_is_held_back_and_told(text: str, size: int) -> None:
    deltas, written = spoken(text, size, tools=TOOLS)
    assert part(deltas, "content") == written.content == "Let me.\n"
    assert [(call.name, dict(call.arguments)) for call in written.calls] == [("add", {"a": 1})]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_bare_call_of_llama(size: int) -> None:
    deltas, written = spoken('{"name": "add", "parameters": {"a": 1}}', size, tools=TOOLS)
    assert deltas == []
    assert [call.name for call in written.calls] == ["add"]


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("text", [
    "{not a call}", "[1, 2]", "`x` is code", "<tool_call>never closed", "a <b> c", "<", "[TOOL",
])  # fmt: skip
def test_what_only_looked_like_a_call_is_shown_in_the_end(text: str, size: int) -> None:
    deltas, written = spoken(text, size, tools=TOOLS)
    assert part(deltas, "content") == written.content == text
    assert written.calls == ()


@given(st.text("abST<", max_size=30), st.integers(1, 5))
def test_it_ends_at_the_stop_string_that_ends_first(text: str, size: int) -> None:
    stops = ["ST", "bb"]
    deltas, written = spoken(text, size, stop=stops)
    ends = [(text.find(stop) + len(stop), stop) for stop in stops if stop in text]
    wanted = text[: min(ends)[0] - len(min(ends)[1])] if ends else text
    assert part(deltas, "content") == written.content == wanted


def test_tokens_that_are_no_text_are_not_shown() -> None:
    one = Speaker(Detokenizer(Bytes(), frozenset({1}), frozenset({2})))
    one.feed([97, 1, 98, 2])
    one.end()
    assert one.written.content == "ab"
