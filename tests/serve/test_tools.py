"""Calls that are forced: a random model writes valid ones, in the template's own syntax."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strop.serve.tools import WrittenCall, written_call
from tests.support.serving import USER, Serving, recipe_of, serving

CALLS = (
    "{% for m in messages %}<|user|>{% if m.tool_calls %}{% for c in m.tool_calls %}BEFORE"
    "{{ CALL | tojson }}AFTER{% endfor %}{% else %}{{ m.content }}{% endif %}<|end|>{% endfor %}"
    "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}"
    "{% if add_generation_prompt %}<|user|>{% endif %}"
)
HERMES = (CALLS.replace("BEFORE", "<tool_call>\n").replace("AFTER", "\n</tool_call>")
          .replace("CALL", "c.function"))  # fmt: skip
LLAMA = (CALLS.replace("BEFORE", "").replace("AFTER", "")
         .replace("CALL", '{"name": c.function.name, "parameters": c.function.arguments}')
         )  # fmt: skip
NOT_JSON = CALLS.replace("{{ CALL | tojson }}", "{{ c.function.name }}()")

TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": name, "parameters": {
        "type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"],
        "additionalProperties": False}}}
    for name in ("add", "drop")
]  # fmt: skip


@pytest.mark.parametrize(("template", "written"), [
    (HERMES, WrittenCall("<tool_call>\n", "arguments", "\n</tool_call>")),
    (LLAMA, WrittenCall("", "parameters", "")),
    (NOT_JSON, None),
    ("{{ messages[0].content }}", None),
])  # fmt: skip
def test_how_a_template_writes_a_call(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, template: str, written: WrittenCall | None
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", template)
    assert written_call(tokenizer) == written


@pytest.fixture(scope="module")
def server(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("tools") / "m"
    shutil.copytree(model_folder, folder)
    (folder / "chat_template.jinja").write_text(HERMES)
    with serving(recipe_of(folder)) as made:
        yield made


def called(server: Serving, choice: Any) -> list[str]:
    """The names that 12 answers called, each with arguments of the tool's schema."""
    said = server.chat(tools=TOOLS, tool_choice=choice, n=12, seed=3, max_tokens=100)
    names = []
    for one in said["choices"]:
        if one["finish_reason"] == "length":  # cut in white space
            continue
        assert one["finish_reason"] == "tool_calls"
        (call,) = one["message"]["tool_calls"]
        assert json.loads(call["function"]["arguments"])["a"] in (1, 2)
        names.append(call["function"]["name"])
    assert len(names) >= 4
    return names


def test_a_call_can_be_required_and_named(server: Serving) -> None:
    assert set(called(server, "required")) == {"add", "drop"}
    only = {"type": "function", "function": {"name": "drop"}}
    assert set(called(server, only)) == {"drop"}


def test_a_streamed_call_comes_whole(server: Serving) -> None:
    how: dict[str, Any] = {"model": "m", "messages": [USER], "tools": TOOLS, "seed": 3,
                           "tool_choice": "required", "max_tokens": 100}  # fmt: skip
    whole = server.client.chat.completions.create(**how)
    chunks = list(server.client.chat.completions.create(**how, stream=True))
    calls = [call for chunk in chunks for choice in chunk.choices
             for call in choice.delta.tool_calls or ()]  # fmt: skip
    wanted = whole.choices[0].message.tool_calls or []
    assert [call.function.arguments for call in calls if call.function] == [
        call.function.arguments for call in wanted if call.type == "function"
    ]
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


@pytest.mark.parametrize(("more", "names"), [
    ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "other"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}],
      "tool_choice": "required"}, "not"),
])  # fmt: skip
def test_what_cannot_be_forced_is_refused(
    server: Serving, more: dict[str, Any], names: str
) -> None:
    body = {"messages": [USER], "tools": TOOLS, **more}
    answer = server.post("/v1/chat/completions", body)
    assert answer.status_code in (400, 422)
    assert names in answer.json()["error"]["message"]
