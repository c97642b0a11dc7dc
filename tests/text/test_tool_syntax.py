"""What every family writes to call tools is read back; what is broken is no call."""

from __future__ import annotations

from typing import Any

import pytest

from strop.text.tools import Call, calls_in

BERN = Call("weather", {"city": "Bern", "days": 3})
CLOCK = Call("time.now", {})
TOOLS: list[dict[str, Any]] = [
    {"type": "function",
     "function": {"name": "weather", "parameters": {
         "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}},
]  # fmt: skip

JSON = '{"name": "weather", "arguments": {"city": "Bern", "days": 3}}'
LLAMA = '{"name": "weather", "parameters": {"city": "Bern", "days": 3}}'
XML = (
    "<tool_call>\n<function=weather>\n<parameter=city>\nBern\n</parameter>\n"
    "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>"
)
GLM = (
    "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Bern</arg_value>\n"
    "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>"
)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (f"<tool_call>\n{JSON}\n</tool_call>", [BERN]),
        (f'I look.\n<tool_call>{JSON}</tool_call>\n<tool_call>{{"name": "time.now"}}</tool_call>',
         [BERN, CLOCK]),
        (XML, [BERN]),
        (XML + "\n<tool_call>\n<function=time.now>\n</function>\n</tool_call>", [BERN, CLOCK]),
        (GLM, [BERN]),
        ("<tool_call>time.now\n</tool_call>", [CLOCK]),
        (LLAMA, [BERN]),
        (f"<|python_tag|>{LLAMA}", [BERN]),
        (f'{LLAMA}; {{"name": "time.now", "parameters": {{}}}}', [BERN, CLOCK]),
        (f"[TOOL_CALLS][{JSON}]", [BERN]),
        (f"[TOOL_CALLS] [{JSON}, {JSON}]", [BERN, BERN]),
        ('[TOOL_CALLS]weather[ARGS]{"city": "Bern", "days": 3}[TOOL_CALLS]time.now[ARGS]{}',
         [BERN, CLOCK]),
        ('[TOOL_CALLS]weather[CALL_ID]abc123[ARGS]{"city": "Bern", "days": 3}', [BERN]),
        ('[weather(city="Bern", days=3), time.now()]', [BERN, CLOCK]),
        ('<|tool_call_start|>[weather(city="Bern", days=3)]<|tool_call_end|>Looking.', [BERN]),
        (' to=functions.weather<|channel|>commentary json<|message|>{"city": "Bern", "days": 3}'
         "<|call|>", [BERN]),
        (f"```json\n{JSON}\n```", [BERN]),
        (f"[{JSON}]", [BERN]),
        (f"<|python_tag|>{LLAMA}<|eom_id|>", [BERN]),
        ('[TOOL_CALLS]weather[ARGS]{"city": "Bern", "days": 3}</s>', [BERN]),
        ('<|tool_call_start|>[weather(city="Bern", days=3)]<|tool_call_end|> and '
         "<|tool_call_start|>[time.now()]<|tool_call_end|>", [BERN, CLOCK]),
    ],
)  # fmt: skip
def test_is_read(text: str, calls: list[Call]) -> None:
    assert calls_in(text, TOOLS) == calls


@pytest.mark.parametrize(
    "text",
    [
        "It is sunny in Bern.",
        f"<tool_call>{JSON}",
        f"<tool_call>{JSON}</tool_call><tool_call>{{</tool_call>",
        '<tool_call>{"name": "weather", "name": "clock"}</tool_call>',
        XML.replace("<parameter=days>", "<parameter=city>"),
        GLM.replace("days", "city"),
        '{"city": "Bern"}',
        '{"name": "weather", "arguments": "Bern"}',
        "[TOOL_CALLS]weather[ARGS]Bern",
        "weather('Bern')",
        "weather(city=open('/etc/passwd'))",
        '<|tool_call_start|>[weather(city="Bern")]',
        "",
        "<tool_call><function=weather><parameter=city>Bern</function></tool_call>",
        XML.replace("<parameter=days>\n3\n</parameter>", "<parameter=days>\n3"),
        "<tool_call><function=a></function><function=b></function></tool_call>",
        GLM.replace("</arg_value>\n</tool_call>", "</tool_call>"),
        "<tool_call>weather now</tool_call>",
        "f(x=1)(y=2)",
        "f[0](x=1)",
        "f(x=...)",
        "f(x={1, 2})",
        '{"name": "Bob", "age": 3}',
        'I may write to=functions.weather <|end|><|channel|>final<|message|>{"city": "Bern"}',
    ],
)
def test_is_no_call(text: str) -> None:
    assert calls_in(text, TOOLS) is None


def test_text_that_looks_like_json_stays_text_where_a_string_is_declared() -> None:
    text = "<tool_call><function=weather><parameter=city>\n3\n</parameter></function></tool_call>"
    assert calls_in(text, TOOLS) == [Call("weather", {"city": "3"})]
    assert calls_in(text) == [Call("weather", {"city": 3})]
