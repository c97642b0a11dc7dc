"""A turn that a template wrote is read, and written again to the letter."""

from __future__ import annotations

from typing import Any

import pytest

from strop.errors import TextError
from strop.rollout.dialogue import ChatWriting
from strop.rollout.environment import Observation, Said
from strop.rollout.tools.toolbox import answers
from strop.text.encode import Encoder
from strop.text.turns import SaidTurn, message_of
from tests.support.calling import CALLS_ALONE, FAMILIES
from tests.support.episodes import (
    ScriptedEngine,
    ScriptedEnvironment,
    ScriptedFactory,
    asked,
    played,
)
from tests.support.templates import TOOLS as CHATML
from tests.support.templates import speaking

TOOLS: Any = [{"type": "function", "function": {
    "name": "note", "description": "Notes it.", "parameters": {
        "type": "object", "properties": {
            "text": {"type": "string"}, "number": {"type": "number"}, "on": {"type": "boolean"},
            "list": {"type": "array"}, "more": {"type": "object"},
            "maybe": {"type": ["string", "null"]}}}}}]  # fmt: skip

ASKED = {"role": "user", "content": "Note it."}

ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"text": "two\nlines, \"quotes\", 'others', \\ and \t", "number": -3},
    {"text": "12", "number": 1e-7, "on": True},
    {"text": "true", "on": False, "list": [], "more": {}},
    {"text": " spaces ", "list": [1, "a", None, True, [0.5]], "more": {"k": {"l": [2]}}},
    {"text": "", "maybe": None, "number": 10**30},
    {"text": "Zürich 東京 🙂", "maybe": "5"},
    {"text": "a, b=1) [c](d); {e}", "list": ["[ARGS]", ", "]},
    {"text": "for m in ms:\n    print(m)\n"},
]


def call(arguments: dict[str, Any], number: int) -> dict[str, Any]:
    return {"id": f"call{number:05d}", "type": "function",
            "function": {"name": "note", "arguments": arguments}}  # fmt: skip


def reread(encoder: Encoder, message: dict[str, Any]) -> tuple[str, SaidTurn, str]:
    """The turn of a message as text, how that is read, and how a dialogue would write it."""
    template = encoder.chat
    before = template.write([ASKED], TOOLS, generation=True)

    def turn(said: dict[str, Any]) -> str:
        text = template.write([ASKED, said], TOOLS)
        assert text.startswith(before)
        return text[len(before) :].removesuffix(template.closing)

    text = turn(message)
    found = message_of(text, TOOLS, first=3, thoughts=encoder.chat.reads_thoughts)
    again = [turn(dict(same)) for same in ChatWriting(encoder, TOOLS, "").same(found.message)]
    return text, found, text if text in again else again[0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_calls_are_written_again_to_the_letter(
    tokenizer: Any, family: str, arguments: dict[str, Any]
) -> None:
    encoder = Encoder(speaking(tokenizer, FAMILIES[family]))
    calls = [call(arguments, 3), call({"text": "second"}, 4)]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    text, said, again = reread(encoder, message)
    assert said.malformed == ""
    assert said.message["tool_calls"] == calls
    assert again == text


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in CALLS_ALONE])
def test_words_before_calls_are_written_again(tokenizer: Any, family: str) -> None:
    encoder = Encoder(speaking(tokenizer, FAMILIES[family]))
    message = {"role": "assistant", "content": "I note it.", "tool_calls": [call({"on": True}, 3)]}
    text, said, again = reread(encoder, message)
    assert said.message["tool_calls"] == message["tool_calls"]
    assert str(said.message["content"]).strip() == "I note it."
    assert again == text


@pytest.mark.parametrize("family", FAMILIES)
def test_words_alone_are_written_again(tokenizer: Any, family: str) -> None:
    encoder = Encoder(speaking(tokenizer, FAMILIES[family]))
    text, said, again = reread(encoder, {"role": "assistant", "content": "It is [1, 2]; {x}."})
    assert said == SaidTurn({"role": "assistant", "content": "It is [1, 2]; {x}."})
    assert again == text


@pytest.mark.parametrize("family", ["Qwen 3", "GLM"])
def test_a_thought_is_written_again(tokenizer: Any, family: str) -> None:
    encoder = Encoder(speaking(tokenizer, FAMILIES[family]))
    message = {"role": "assistant", "content": None, "reasoning_content": "<tool_call>? Yes.",
               "tool_calls": [call({"text": "</think>"}, 3)]}  # fmt: skip
    text, said, again = reread(encoder, message)
    assert text.startswith("<think>\n<tool_call>? Yes.\n</think>\n\n")
    assert said.message["reasoning_content"].strip() == "<tool_call>? Yes."
    assert said.message["tool_calls"] == message["tool_calls"]
    assert again == text


def test_chatml_of_other_tests_too(tokenizer: Any) -> None:
    encoder = Encoder(speaking(tokenizer, CHATML))
    for arguments in ARGUMENTS:
        message = {"role": "assistant", "content": "So: ", "tool_calls": [call(arguments, 3)]}
        text, said, again = reread(encoder, message)
        assert said.message == message
        assert again == text


@pytest.mark.parametrize("family", ["Mistral, v3", "Mistral, v11"])
def test_an_id_that_a_template_refuses_never_reaches_it(tokenizer: Any, family: str) -> None:
    encoder = Encoder(speaking(tokenizer, FAMILIES[family]))
    said = message_of("[TOOL_CALLS]note[CALL_ID]x[ARGS]{}", TOOLS, first=2)
    assert "call00002" in encoder.chat.write([ASKED, dict(said.message)], TOOLS)
    (one,) = said.message["tool_calls"]
    with pytest.raises(TextError, match="nine letters"):
        encoder.chat.write([ASKED, {**said.message, "tool_calls": [{**one, "id": "x"}]}], TOOLS)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_episode_of_calls_as_the_template_writes_them_never_forks(
    tokenizer: Any, family: str
) -> None:
    """Two turns of calls and an answer: each family's history is what was sampled."""
    told = speaking(tokenizer, FAMILIES[family])
    told.init_kwargs["end_of_turn"] = ["<|im_end|>"]
    encoder = Encoder(told)
    turns = [
        reread(encoder, {"role": "assistant", "content": None, "tool_calls": [call(made, number)]})
        for number, made in enumerate(({"text": "a b"}, {"number": 2}))
    ]
    said = iter([*(text for text, _, _ in turns), "Noted."])

    def answer(heard: Said, number: int) -> Observation:
        return Observation(answers(heard, ["done"]) if heard.calls else (), done=not heard.calls)

    engine = ScriptedEngine(told, lambda prompt, request: next(said))
    factory = ScriptedFactory(lambda number: ScriptedEnvironment(answer), tools=TOOLS)
    (episode,) = played(engine, factory, asked(told, [[ASKED]], tools=TOOLS, max_tokens=200))
    assert [len(e.get("tool_calls") or []) for e in episode.messages[::2]] == [1, 1, 0]
    assert episode.facts["forks"] == 0
    assert episode.text == "Noted."
