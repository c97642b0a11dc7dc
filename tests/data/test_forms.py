"""Formats that people have, read as strop's own records."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from strop.data.forms import form_name, label_of
from strop.data.records import any_record, demonstration, feedback, preference, task
from strop.data.sources import at, read
from strop.errors import DataError
from strop.types import Demonstration, Feedback, Origin, Preference, Task

HERE = Origin("a.jsonl", 1)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


class TestAlpaca:
    ROW = {"instruction": "Solve for x.", "input": "2x = 6", "output": "3", "id": 7}  # noqa: RUF012

    def test_a_demonstration(self) -> None:
        found = demonstration(self.ROW, HERE)
        assert found == Demonstration(
            [user("Solve for x.\n\n2x = 6")], [said("3")], {"id": 7}, HERE
        )

    @pytest.mark.parametrize("given", [{"input": ""}, {"input": None}, {}])
    def test_without_input(self, given: dict[str, Any]) -> None:
        found = demonstration({"instruction": "Say hi.", **given, "output": "Hi"}, HERE)
        assert found.prompt == [user("Say hi.")]
        assert found.columns == {}

    def test_history_and_system_stand_before_it(self) -> None:
        row = {**self.ROW, "history": [["1x = 1", "1"]], "system": "Be brief."}
        assert demonstration(row, HERE).prompt == [
            {"role": "system", "content": "Be brief."},
            user("1x = 1"), said("1"), user("Solve for x.\n\n2x = 6"),
        ]  # fmt: skip

    def test_pairs_and_thumbs(self) -> None:
        pair = preference({"instruction": "2x = 6", "chosen": "3", "rejected": "4"}, HERE)
        assert pair == Preference([user("2x = 6")], [said("3")], [said("4")], {}, HERE)
        thumb = feedback({**self.ROW, "kto_tag": False}, HERE)
        assert (thumb.completion, thumb.label, thumb.columns) == ([said("3")], False, {"id": 7})

    def test_a_task_keeps_the_output_for_rewards(self) -> None:
        assert task(self.ROW, HERE).columns == {"output": "3", "id": 7}

    def test_an_empty_output_is_a_bad_row(self) -> None:
        with pytest.raises(DataError, match="`completion` is empty") as caught:
            demonstration({**self.ROW, "output": " "}, HERE)
        assert caught.value.kind == "empty"

    def test_an_output_that_is_no_text(self) -> None:
        with pytest.raises(DataError, match="`output` is"):
            demonstration({**self.ROW, "output": {"a": 1}}, HERE)


class TestSharegpt:
    TURNS = [  # noqa: RUF012
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "2x = 6"},
        {"from": "gpt", "value": "3"},
    ]

    def test_its_roles(self) -> None:
        found = demonstration({"conversations": self.TURNS, "id": "c1"}, HERE)
        assert found == Demonstration(
            [{"role": "system", "content": "Be brief."}, user("2x = 6")],
            [said("3")], {"id": "c1"}, HERE,
        )  # fmt: skip

    def test_tools(self) -> None:
        called = {"name": "weather", "arguments": {"city": "Rome"}}
        turns = [
            {"from": "human", "value": "Weather in Rome?"},
            {
                "from": "function_call",
                "value": '{"name": "weather", "arguments": {"city": "Rome"}}',
            },
            {"from": "observation", "value": "sunny"},
            {"from": "gpt", "value": "It is sunny."},
        ]
        tools = [{"name": "weather", "parameters": {}}]
        found = demonstration({"conversations": turns, "tools": json.dumps(tools)}, HERE)
        call = {"type": "function", "function": called}
        assert found.completion == [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "sunny"},
            said("It is sunny."),
        ]
        assert found.columns == {"tools": tools}

    @pytest.mark.parametrize("value", ["no json", "[]x", '{"arguments": {}}', "3"])
    def test_a_broken_call(self, value: str) -> None:
        turns = [{"from": "human", "value": "Hi"}, {"from": "function_call", "value": value}]
        with pytest.raises(DataError, match=r"conversations|messages\[1\]|broken JSON"):
            demonstration({"conversations": turns}, HERE)

    def test_a_pair_behind_its_conversation(self) -> None:
        row = {
            "conversations": self.TURNS[:2],
            "chosen": {"from": "gpt", "value": "3"},
            "rejected": {"from": "gpt", "value": "4"},
        }
        found = preference(row, HERE)
        assert found.prompt[-1] == user("2x = 6")
        assert (found.chosen, found.rejected) == ([said("3")], [said("4")])

    def test_with_role_and_content(self) -> None:
        found = demonstration({"conversations": [user("2x = 6"), said("3")]}, HERE)
        assert found.completion == [said("3")]

    def test_an_unknown_speaker_is_named(self) -> None:
        with pytest.raises(DataError, match=r"messages\[0\]` is from 'narrator'"):
            demonstration({"conversations": [{"from": "narrator", "value": "a"}]}, HERE)


class TestTranscripts:
    ASKED = "\n\nHuman: 2x = 6?\n\nAssistant: Are you sure?\n\nHuman: Yes.\n\nAssistant:"

    def test_the_shared_turns_are_the_prompt(self) -> None:
        row = {"chosen": f"{self.ASKED} 3", "rejected": f"{self.ASKED} Four.\n\nOr five."}
        found = preference(row, HERE)
        assert found.prompt == [user("2x = 6?"), said("Are you sure?"), user("Yes.")]
        assert (found.chosen, found.rejected) == ([said("3")], [said("Four.\n\nOr five.")])

    def test_a_prompt_that_waits_for_the_assistant(self) -> None:
        found = preference({"prompt": self.ASKED, "chosen": "3", "rejected": "4"}, HERE)
        assert found.prompt == [user("2x = 6?"), said("Are you sure?"), user("Yes.")]
        assert (found.chosen, found.rejected) == ("3", "4")

    def test_different_prompts_are_a_bad_row(self) -> None:
        row = {"chosen": "Human: a\n\nAssistant: b", "rejected": "Human: c\n\nAssistant: b"}
        with pytest.raises(DataError) as caught:
            preference(row, HERE)
        assert caught.value.kind == "different_prompts"

    def test_blank_lines_take_no_longer_than_their_number(self) -> None:
        row = {"prompt": "Human: a" + "\n" * 200_000, "chosen": "b", "rejected": "c"}
        begun = time.process_time()
        assert form_name(row) == "prompt, chosen, rejected"
        assert time.process_time() - begun < 5

    def test_an_answer_that_quotes_one_is_a_text(self) -> None:
        quoting = "Say:\n\nHuman: hi\n\nAssistant: hello"
        found = preference({"prompt": "a", "chosen": quoting, "rejected": "b"}, HERE)
        assert (found.prompt, found.chosen) == ("a", quoting)


class TestMessages:
    def test_a_thumb_is_for_the_last_turn(self) -> None:
        row = {"messages": [user("a"), said("b"), user("c"), said("d")], "label": "up"}
        found = feedback(row, HERE)
        assert found.prompt == [user("a"), said("b"), user("c")]
        assert (found.completion, found.label) == ([said("d")], True)

    def test_a_task_is_asked_before_the_last_answer(self) -> None:
        asked = [user("a"), said("b"), user("c")]
        assert task({"messages": asked}, HERE) == Task(asked, {}, HERE)
        found = task({"messages": [*asked, said("d")]}, HERE)
        assert found == Task(asked, {"completion": [said("d")]}, HERE)

    def test_no_answer_to_judge(self) -> None:
        with pytest.raises(DataError) as caught:
            feedback({"messages": [user("a")], "label": 1}, HERE)
        assert caught.value.kind == "no_answer"


@pytest.mark.parametrize(
    ("value", "meant"),
    [(True, True), (False, False), (1, True), (0, False), (1.0, True), (-1, False), ("up", True),
     ("Down", False), ("1", True), ("0", False), ("true", True), (" FALSE ", False),
     ("thumbs_up", True), ("thumbs-down", False)],
)  # fmt: skip
def test_labels(value: object, meant: bool) -> None:
    assert label_of(value, HERE) is meant


@pytest.mark.parametrize("value", [2, 0.5, "yes please", None, [1], "", float("nan")])
def test_no_labels(value: object) -> None:
    with pytest.raises(DataError, match="`label` is") as caught:
        label_of(value, HERE)
    assert caught.value.kind == "label"


def test_what_a_row_is_called() -> None:
    assert form_name(TestAlpaca.ROW) == "alpaca"
    assert form_name({"conversations": []}) == "sharegpt"
    assert form_name({"chosen": "Human: a\n\nAssistant: b", "rejected": "Human: a\n\nAssistant: c"}
                     ) == "transcripts"  # fmt: skip
    assert form_name({"prompt": "a", "id": 3, "completion": "b"}) == "prompt, completion"
    assert form_name({"a": 1}) == "unknown columns"


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"instruction": "a", "output": "b"}, Demonstration),
        ({"instruction": "a", "output": "b", "label": 1}, Feedback),
        ({"instruction": "a"}, Task),
        ({"conversations": [user("a"), said("b")]}, Demonstration),
        ({"messages": [user("a"), said("b")], "label": True}, Feedback),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, Preference),
    ],
)
def test_the_record_a_row_looks_like(row: dict[str, Any], kind: type) -> None:
    assert type(any_record(row, HERE)) is kind


def test_a_lone_object_of_each_form_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(TestAlpaca.ROW))
    (record,) = read([at(path)], demonstration)
    assert record.completion == [said("3")]
