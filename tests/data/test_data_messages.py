"""Messages, tools and system columns as users' files hold them; Parquet as its writers pad it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import Dataset

from strop.data.messages import without_nulls
from strop.data.records import PARSERS, demonstration, feedback, preference, task
from strop.data.sources import at, read
from strop.errors import DataError
from strop.rewards.audit.sample import read_completions
from strop.types import Origin

HERE = Origin("f.jsonl", 7)

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Weather in Paris?"}
SAID = {"role": "assistant", "content": "Rain."}
BAD = {"role": "assistant", "content": "Sun."}

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
BARE = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    made = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [made]}


def fault(parse: Callable[..., Any], row: dict[str, Any]) -> str:
    with pytest.raises(DataError) as caught:
        parse(row, HERE)
    assert caught.value.where is not None
    assert caught.value.where.startswith("f.jsonl:7")
    assert caught.value.fix
    return f"{caught.value.problem} | {caught.value.fix}"


class TestParquet:
    """Arrow gives every message the keys of all, every call the arguments of all."""

    ROWS = (
        {
            "messages": [USER, call("weather", city="Paris"), {"role": "tool", "content": "rain"},
                         SAID],
            "tools": [TOOL, {"type": "function", "function": BARE}],
        },
        {
            "messages": [{**USER, "name": "Ann"}, call("add", a=1, deep={"b": [1, None]}), SAID],
            "tools": [{"type": "function", "function": BARE}],
        },
    )  # fmt: skip

    @pytest.mark.parametrize("writer", ["pyarrow", "datasets", "saved", "jsonl"])
    def test_the_padding_is_gone(self, tmp_path: Path, writer: str) -> None:
        path = self.write(tmp_path, writer)
        first, second = read([at(path)], demonstration)
        assert first.prompt == [USER]
        assert first.completion == self.ROWS[0]["messages"][1:]
        assert first.completion[0]["content"] is None  # type: ignore[index]
        assert first.columns["tools"] == self.ROWS[0]["tools"]
        assert second.prompt == [{**USER, "name": "Ann"}]
        assert second.completion == self.ROWS[1]["messages"][1:]
        assert second.columns["tools"] == self.ROWS[1]["tools"]

    def write(self, folder: Path, writer: str) -> Path:
        path = folder / "a.parquet"
        if writer == "pyarrow":
            pyarrow.parquet.write_table(pa.Table.from_pylist(list(self.ROWS)), path)
            held = pyarrow.parquet.read_table(path).to_pylist()
            assert held[0]["messages"][0]["tool_calls"] is None  # the fault is there
            assert held[0]["messages"][1]["tool_calls"][0]["function"]["arguments"]["a"] is None
        elif writer == "datasets":
            Dataset.from_list(list(self.ROWS)).to_parquet(str(path))
        elif writer == "saved":
            path = folder / "saved"
            Dataset.from_list(list(self.ROWS)).save_to_disk(str(path))
        else:
            path = folder / "a.jsonl"
            pyarrow.parquet.write_table(pa.Table.from_pylist(list(self.ROWS)), folder / "b.parquet")
            padded = pyarrow.parquet.read_table(folder / "b.parquet").to_pylist()
            path.write_text("".join(json.dumps(row) + "\n" for row in padded))
        return path

    def test_arguments_that_are_text_keep_their_nulls(self) -> None:
        turn = {"role": "assistant", "tool_calls": [
            {"function": {"name": "f", "arguments": '{"a": null}'}, "id": None}]}  # fmt: skip
        record = demonstration({"messages": [USER, turn]}, HERE)
        made = {"function": {"name": "f", "arguments": '{"a": null}'}}
        assert record.completion == [{"role": "assistant", "tool_calls": [made]}]

    def test_nulls_in_lists_and_false_values_stay(self) -> None:
        given = {"a": [1, None, {"b": None, "c": 0}], "d": "", "e": False, "f": {}, "g": None}
        assert without_nulls(given) == {"a": [1, None, {"c": 0}], "d": "", "e": False, "f": {}}

    def test_an_empty_list_of_calls_is_none(self) -> None:
        record = demonstration({"messages": [USER, {**SAID, "tool_calls": []}]}, HERE)
        assert record.completion == [SAID]

    def test_messages_turned_about(self) -> None:
        """As `datasets` keeps a sequence of objects."""
        turned = {"role": ["user", "assistant"], "content": [USER["content"], SAID["content"]]}
        record = demonstration({"messages": turned}, HERE)
        assert (record.prompt, record.completion) == ([USER], [SAID])
        turned["content"].pop()
        assert "not a list as long" in fault(demonstration, {"messages": turned})

    def test_messages_as_json_text(self) -> None:
        record = demonstration({"messages": json.dumps([USER, SAID])}, HERE)
        assert (record.prompt, record.completion) == ([USER], [SAID])
        assert "broken JSON" in fault(demonstration, {"messages": "[{'role': 'user'}]"})


class TestParts:
    def test_texts_are_joined(self) -> None:
        parts = [{"type": "text", "text": "Weather "}, {"type": "text", "text": "in Paris?",
                                                        "image_url": None}]  # fmt: skip
        assert task({"prompt": [{"role": "user", "content": parts}]}, HERE).prompt == [USER]

    @pytest.mark.parametrize(
        ("part", "message"),
        [
            ({"type": "image_url", "image_url": {"url": "x"}}, "`prompt[0]` holds a part of type "
             "'image_url'"),
            ({"type": "input_audio"}, "a part of type 'input_audio'"),
            ({"type": "text", "text": None}, "is no text"),
            ("Paris", "is no text"),
            ({}, "a part of type None"),
        ],
    )  # fmt: skip
    def test_other_parts_are_refused_by_name(self, part: Any, message: str) -> None:
        content = [{"type": "text", "text": "a"}, part]
        assert message in fault(task, {"prompt": [{"role": "user", "content": content}]})


class TestSystem:
    @pytest.mark.parametrize(
        ("kind", "row"),
        [
            ("demonstration", {"prompt": USER["content"], "completion": "Rain."}),
            ("demonstration", {"prompt": [USER], "completion": [SAID]}),
            ("demonstration", {"messages": [USER, SAID]}),
            ("preference", {"prompt": USER["content"], "chosen": "Rain.", "rejected": "Sun."}),
            ("preference", {"chosen": [USER, SAID], "rejected": [USER, BAD]}),
            ("preference", {"input": {"messages": [USER]}, "preferred_output": [SAID],
                            "non_preferred_output": [BAD]}),
            ("feedback", {"prompt": USER["content"], "completion": "Rain.", "label": True}),
            ("task", {"prompt": USER["content"], "answer": "Rain"}),
        ],
    )  # fmt: skip
    def test_it_is_the_first_message_in_every_form(self, kind: str, row: dict[str, Any]) -> None:
        record: Any = PARSERS[kind]({**row, "system": SYSTEM["content"]}, HERE)
        assert record.prompt == [SYSTEM, USER]
        for nothing in (None, "", " "):
            record = PARSERS[kind]({**row, "system": nothing}, HERE)
            assert record.prompt in ([USER], USER["content"])

    def test_one_that_is_there_already(self) -> None:
        row = {"prompt": [SYSTEM, USER], "system": SYSTEM["content"]}
        assert task(row, HERE).prompt == [SYSTEM, USER]
        row["system"] = "Be long."
        assert "something else than the system turn" in fault(task, row)
        assert "`system` is 3" in fault(task, {**row, "system": 3})

    def test_completions_that_are_checked_have_it_too(self, tmp_path: Path) -> None:
        row = {"prompt": USER["content"], "system": "Be brief.", "completion": "Rain.", "label": 1}
        (tmp_path / "a.jsonl").write_text(json.dumps(row))
        (said,) = read_completions(tmp_path / "a.jsonl")
        assert said.task.prompt == [SYSTEM, USER]


class TestTools:
    @pytest.mark.parametrize("given", [[TOOL, BARE], json.dumps([TOOL, BARE])])
    def test_a_list_or_its_text(self, given: Any) -> None:
        record = demonstration({"prompt": "p", "completion": "c", "tools": given}, HERE)
        assert record.columns["tools"] == [TOOL, BARE]

    def test_in_openais_preferences(self) -> None:
        row = {"input": {"messages": [USER], "tools": [TOOL]}, "preferred_output": [SAID],
               "non_preferred_output": [BAD]}  # fmt: skip
        assert preference(row, HERE).columns["tools"] == [TOOL]
        assert preference({**row, "tools": [TOOL]}, HERE).columns["tools"] == [TOOL]
        assert "name different tools" in fault(preference, {**row, "tools": [BARE]})

    def test_none_are_an_empty_list(self) -> None:
        for nothing in (None, [], "", "[]"):
            assert task({"prompt": "p", "tools": nothing}, HERE).columns["tools"] == []
        assert "tools" not in task({"prompt": "p"}, HERE).columns

    @pytest.mark.parametrize(
        ("tools", "message"),
        [
            ("{", "broken JSON"),
            ("weather", "broken JSON"),
            (TOOL, "`tools` is no list of tools"),
            (["weather"], "`tools[0]` is no function with a name"),
            ([TOOL, {"type": "code_interpreter"}], "`tools[1]` is no function with a name"),
            ([{"type": "function", "function": {"name": None}}], "`tools[0]` is no function"),
        ],
    )
    def test_what_is_no_list_of_tools(self, tools: Any, message: str) -> None:
        assert message in fault(task, {"prompt": "p", "tools": tools})


ASK = [{"role": "user", "content": "u"}]


@pytest.mark.parametrize(
    ("parse", "row", "message"),
    [
        # what comes first
        (demonstration, {"messages": [SAID, USER, SAID]}, "`messages` starts with the assistant"),
        (demonstration, {"prompt": "p", "completion": [USER, SAID]},
         "`completion` starts with a user turn"),
        (demonstration, {"prompt": ASK, "completion": [SYSTEM, SAID]},
         "`completion` starts with a system turn"),
        (feedback, {"prompt": "p", "completion": [USER, SAID], "label": True},
         "`completion` starts with a user turn"),
        (preference, {"prompt": "p", "chosen": "a", "rejected": [USER, BAD]},
         "`rejected` starts with a user turn"),
        (preference, {"input": {"messages": ASK}, "preferred_output": [USER, SAID],
                      "non_preferred_output": [BAD]}, "`preferred_output` starts with a user turn"),
        (preference, {"chosen": [USER], "rejected": [USER, BAD]}, "`chosen` ends with a user turn"),
        (demonstration, {"prompt": "p", "completion": [{"role": "tool", "content": "5"}]},
         "`completion` holds no assistant turn"),
        # null and empty
        (demonstration, {"prompt": "p", "completion": None}, "`completion` is null"),
        (demonstration, {"prompt": None, "completion": "c"}, "`prompt` is null"),
        (demonstration, {"messages": None}, "`messages` is null"),
        (task, {"prompt": None, "answer": 5}, "`prompt` is null"),
        (preference, {"prompt": "p", "chosen": None, "rejected": "b"}, "`chosen` is null"),
        (feedback, {"prompt": "p", "completion": "c", "label": None}, "`label` is null"),
        (demonstration, {"messages": []}, "`messages` is an empty list"),
        (task, {"prompt": []}, "`prompt` is an empty list"),
        (demonstration, {"prompt": ASK, "completion": []}, "`completion` is an empty list"),
        (preference, {"input": {"messages": None}, "preferred_output": [SAID],
                      "non_preferred_output": [BAD]}, "`input` holds no messages"),
        # roles
        (demonstration, {"messages": [USER, {"role": "gpt", "content": "a"}]}, "write 'assistant'"),
        (task, {"prompt": [{"role": "human", "content": "a"}]}, "write 'user'"),
        (task, {"prompt": [{"role": "User", "content": "a"}]}, "write 'user'"),
        (task, {"prompt": [{"role": "asistant", "content": "a"}]}, "write 'assistant'"),
        (task, {"prompt": [{"role": 5, "content": "a"}]}, "the role of `prompt[0]` is 5"),
        (task, {"prompt": [{"from": "me", "value": "a"}]}, "is from 'me'"),
        (task, {"prompt": ["hello"]}, "`prompt[0]` has no role (it is 'hello')"),
        # content
        (task, {"prompt": [{"role": "user", "content": 5}]}, "the content of `prompt[0]` is no"),
        (task, {"prompt": [{"role": "user", "content": {"a": 1}}]}, "as JSON text"),
        (task, {"prompt": [{"role": "user", "content": None}]}, "`prompt[0]` is empty"),
        (task, {"prompt": USER}, "`prompt` is a single message"),
        (task, {"prompt": {"a": 1}}, "neither text nor a list of messages (it is {'a': 1})"),
        # labels and columns of other formats
        (feedback, {"prompt": "p", "completion": "c", "label": "maybe"}, "use true or false"),
        (demonstration, {"conversations": []}, "`messages` is an empty list"),
        (demonstration, {"question": "a", "output": "b"},
         "columns: {prompt: question, completion: output}"),
    ],
)  # fmt: skip
def test_every_mistake_is_called_by_its_name(
    parse: Callable[..., Any], row: dict[str, Any], message: str
) -> None:
    assert message in fault(parse, row)


def test_their_right_siblings_are_read() -> None:
    """The clean case beside every mistake above."""
    assert demonstration({"messages": [SYSTEM, SAID, USER, SAID]}, HERE).prompt == [SYSTEM]
    late = [{"role": "tool", "content": "5"}, SAID]
    assert demonstration({"prompt": ASK, "completion": late}, HERE).completion == late
    own = [{"role": "critic", "content": "a template's own role"}, USER]
    assert task({"prompt": own}, HERE).prompt == own
    row = {"prompt": None, "completion": None, "messages": [USER, SAID]}  # a union of two files
    assert demonstration(row, HERE).prompt == [USER]
    pair = {"prompt": None, "chosen": [USER, SAID], "rejected": [USER, BAD]}
    assert preference(pair, HERE).prompt == [USER]
