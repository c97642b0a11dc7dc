"""Samples are read, searched and shortened."""

from __future__ import annotations

import json
from pathlib import Path

from strop.tracking.story.samples import (
    MOST_TEXT,
    Sample,
    SamplesLog,
    Wanted,
    chosen,
    same_prompt,
    sample_of,
    written,
)


def sample(step: int, reward: float | None = None, prompt: str = "p", said: str = "x") -> Sample:
    return sample_of({"step": step, "prompt": prompt, "completion": said, "reward": reward})


def test_lines_become_samples_and_torn_ones_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    rows = [
        {"step": 0, "prompt": "a", "chosen": "b", "learnt": "b"},
        {"step": 3, "prompt": [{"role": "user", "content": "2+2?"}], "completion": "4",
         "reward": 1.0, "exact_answer": 1.0, "habit": "no_work"},
    ]  # fmt: skip
    torn = '{"step": 4, "pro\n' + '{"prompt": "no step"}\n' + '{"step": 5'
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + torn)
    log = SamplesLog(path)
    log.refresh()
    samples = log.samples
    assert log.problems == ["samples.jsonl: 2 lines cannot be read"]
    assert samples[0].texts == (("chosen", "b"), ("learnt", "b"))
    assert samples[1] == Sample(3, "user: 2+2?", (("completion", "4"),), 1.0, "no_work",
                                {"exact_answer": 1.0})  # fmt: skip
    none = SamplesLog(tmp_path / "none")
    none.refresh()
    assert (none.samples, none.problems) == ([], [])


def test_samples_are_read_on_and_spread_over_all_steps(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    log = SamplesLog(path, most=10)
    for start in range(0, 100, 25):
        with path.open("a") as stream:
            for step in range(start, start + 25):
                stream.write(json.dumps({"step": step, "completion": "x"}) + "\n")
        log.refresh()
    assert [one.step for one in log.samples] == list(range(0, 100, 16))
    path.write_text(json.dumps({"step": 7, "completion": "y"}) + "\n")
    log.refresh()
    assert [one.step for one in log.samples] == [7]


def test_conversations_with_calls_are_written_out() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add"}}]}
    said = written([{"role": "user", "content": [{"type": "text", "text": "hi"}]}, call, "odd"])
    assert said.splitlines() == [
        'user: [{"type": "text", "text": "hi"}]',
        'assistant: [{"function": {"name": "add"}}]',
        "odd",
    ]
    long = written("a" * (MOST_TEXT + 5))
    assert long.endswith(f"... ({MOST_TEXT + 5} characters)")
    assert len(long) < MOST_TEXT + 40


def test_search_by_text_step_reward_and_habit() -> None:
    rows = [sample(1, 0.0), sample(2, 1.0, said="The Answer"), sample(3, None)]
    assert [s.step for s in rows if Wanted(text="answer").takes(s)] == [2]
    assert [s.step for s in rows if Wanted(steps=(2, 3)).takes(s)] == [2, 3]
    assert [s.step for s in rows if Wanted(low=0.5).takes(s)] == [2]
    assert [s.step for s in rows if Wanted(high=0.5).takes(s)] == [1]
    assert not any(Wanted(habit="flattery").takes(s) for s in rows)


def test_few_of_many_are_spread_over_the_run() -> None:
    rows = [sample(n) for n in range(100)]
    assert [one.step for one in chosen(rows, 5)] == [0, 20, 40, 60, 99]
    assert chosen(rows[:3], 5) == rows[:3]


def test_first_and_last_answer_to_the_same_prompt() -> None:
    rows = [sample(1, said="a"), sample(1, prompt="q"), sample(5, said="b"), sample(9, said="c")]
    ((first, last),) = same_prompt(rows)
    assert (first.texts[0][1], last.texts[0][1]) == ("a", "c")
