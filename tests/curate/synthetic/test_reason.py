"""Distilling reasoning: what a verifier finds right, with its thoughts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from strop.curate.synthetic.reason import reason
from strop.data.records import any_record
from strop.recipe.loading.load import load
from strop.recipe.synthetic import ReasonRecipe
from strop.recipe.train.reward import RewardComponent
from strop.rewards.compose import Reward
from strop.text.encode import Encoder
from strop.text.script import asked_of, script_of
from strop.types import Answer, Origin
from tests.support.generated import left_out, prompts_file, target, written
from tests.support.scripted import Say, Scripted

SAYS = (
    "<think>3 + 4 = 7</think>7",
    "<think>three and four, so seven in all</think>The answer is 7",
    "<think>7, but I say so wrongly</think>8",
    "7",
    "<think>3 + 4 = 7</think>7",
    "<think>add four to three to get seven and then stop</think>7",
)


def run(
    folder: Path, say: Say = lambda _, n: SAYS[n], prompt: Any = "3 + 4?", **recipe: Any
) -> Any:
    reward = Reward([RewardComponent(function="exact_answer")])
    inputs = prompts_file(folder, [{"prompt": prompt, "answer": "7"}])
    given = load(ReasonRecipe, {"samples": 6, **recipe})
    return reason(inputs, Scripted(say), reward, given, target(folder))


def test_only_right_answers_are_kept_the_shortest_first(tmp_path: Path) -> None:
    """A right number in the thought is no right answer."""
    made = run(tmp_path)
    assert [row["completion"] for row in written(tmp_path)] == [SAYS[3], SAYS[0], SAYS[5], SAYS[1]]
    assert dict(made.dropped) == {"wrong": 1, "repeated_answer": 1}
    assert made.figures["solved_prompts"] == 1


def test_at_most_so_many(tmp_path: Path) -> None:
    made = run(tmp_path, most=2, thought=True)
    assert [row["completion"] for row in written(tmp_path)] == [SAYS[0], SAYS[5]]
    assert dict(made.dropped) == {"wrong": 1, "no_thought": 1, "repeated_answer": 1,
                                  "beyond_most": 1}  # fmt: skip


def test_the_most_different_first(tmp_path: Path) -> None:
    sums = ["<think>3 + 4 = 7</think>7", "<think>3 + 4 = 7, yes</think>7"]
    counts = "<think>count on from three: four, five, six, seven</think>7"
    for first, kept in (("shortest", sums), ("diverse", [sums[0], counts])):
        (tmp_path / first).mkdir()
        run(tmp_path / first, lambda _, n: [*sums, counts][n], most=2, samples=3, first=first)
        assert [row["completion"] for row in written(tmp_path / first)] == kept


def test_nothing_right(tmp_path: Path) -> None:
    made = run(tmp_path, lambda _, n: SAYS[2])
    assert written(tmp_path) == []
    assert left_out(tmp_path) == [("wrong", "the verifier gave 0")] * 6
    assert "solved_prompts" not in made.figures


def test_a_thought_that_the_template_opened_stands_in_the_record(tmp_path: Path) -> None:
    opened = Answer("3 + 4</think>7", "stop", opened="<think>\n")
    turns = [{"role": "user", "content": "3 + 4?"}]
    run(tmp_path, lambda _, n: opened, turns, thought=True, samples=1)
    (row,) = written(tmp_path)
    assert row["completion"] == [{"role": "assistant", "content": "<think>\n3 + 4</think>7"}]


def test_a_thought_that_a_plain_prompt_opened_is_not_written_twice(tmp_path: Path) -> None:
    opened = Answer("3 + 4</think>7", "stop", opened="<think>\n")
    run(tmp_path, lambda _, n: opened, "3 + 4? <think>\n", thought=True, samples=1)
    (row,) = written(tmp_path)
    assert (row["prompt"], row["completion"]) == ("3 + 4? <think>\n", "3 + 4</think>7")


TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content.split('</think>')[-1] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
)
"""Opens a thought for the model, and forgets thoughts of turns that are over, as R1's does."""


@pytest.fixture
def forgetful(tokenizer: PreTrainedTokenizerBase) -> Any:
    kept = tokenizer.chat_template
    tokenizer.chat_template = TEMPLATE
    yield tokenizer
    tokenizer.chat_template = kept


def test_training_reads_the_thought_where_its_template_writes_one(
    tmp_path: Path, forgetful: Any
) -> None:
    """The record as a training run renders it: thought and answer are learnt, once."""
    opened = Answer("3 + 4</think>7", "stop", opened="<think>\n")
    turns = [{"role": "user", "content": "3 + 4?"}]
    run(tmp_path, lambda _, n: opened, turns, thought=True, samples=1)
    record = any_record(written(tmp_path)[0], Origin("out.jsonl", 1))
    script = script_of(Encoder(forgetful), asked_of(record))
    assert script.fault is None
    assert script.prompt == "<user>3 + 4?<|end|><assistant><think>\n"
    assert [turn.text for turn in script.answers[0].turns] == ["3 + 4</think>7<|end|>"]
