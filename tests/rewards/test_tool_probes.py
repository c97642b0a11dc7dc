"""Rewards that pay for the look of work are found by the probe of their kind; sound ones pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from strop.errors import RewardError
from strop.recipe.train.reward import ProbesRecipe, RewardComponent
from strop.rewards.audit.check import attacked, defend
from strop.rewards.audit.tool_attacks import EXAMPLE
from strop.types import Origin, Task

TOOL_PROBES = {"tool_spam", "tool_faked", "tool_idle", "error_copied", "stopped_early"}

WEAK = """
from strop.text.parse import spoken


def turns(completion):
    return [m for m in completion if m["role"] == "assistant"]


def right(completion, answer):
    return float(f"<answer>{answer}</answer>" in spoken(completion))


def sound(prompts, completions, *, answer, **columns):
    return [right(c, a) for c, a in zip(completions, answer)]


def pays_calls(prompts, completions, *, answer, **columns):
    return [
        right(c, a) + 0.01 * sum(len(t.get("tool_calls") or ()) for t in turns(c))
        for c, a in zip(completions, answer)
    ]


def pays_a_call(prompts, completions, *, answer, **columns):
    return [
        right(c, a) + 0.1 * any(t.get("tool_calls") for t in turns(c))
        for c, a in zip(completions, answer)
    ]


def believes(prompts, completions, *, answer, **columns):
    return [
        max(right(c, a), float("this is right" in spoken(c))) for c, a in zip(completions, answer)
    ]


def pays_no_mistake(prompts, completions, *, answer, **columns):
    return [
        1.0 if not (said := spoken([turns(c)[-1]])) or right(c, a) else 0.0
        for c, a in zip(completions, answer)
    ]


def takes_errors(prompts, completions, *, answer, **columns):
    return [
        float(right(c, a) or "error" in spoken(c)) for c, a in zip(completions, answer)
    ]
"""


@pytest.fixture
def tried(tmp_path: Path, write_rows: Any) -> Any:
    """The probes of episodes that a reward of `WEAK` fails."""
    file = tmp_path / "weak.py"
    file.write_text(WEAK)
    rows = [
        {"prompt": [{"role": "user", "content": f"What is {n} + {n}?"}], "answer": str(2 * n),
         "completions": [f"So: <answer>{2 * n}</answer>", f"So: <answer>{n}9</answer>"],
         "labels": [True, False]}
        for n in range(3, 9)
    ]  # fmt: skip
    labelled = write_rows("labelled.jsonl", rows)

    def failed(name: str, tools: Any = EXAMPLE) -> set[str]:
        component = RewardComponent.model_validate({"function": name, "file": str(file)})
        findings = attacked([component], ProbesRecipe(), labelled, tools)
        if tools:
            assert {one.probe for one in findings} >= TOOL_PROBES
        return {one.probe for one in findings if one.verdict == "fails"} & TOOL_PROBES

    return failed


@pytest.mark.parametrize(("name", "probes"), [
    ("sound", set()),
    ("pays_calls", {"tool_spam", "tool_idle"}),
    ("pays_a_call", {"tool_idle"}),
    ("believes", {"tool_faked"}),
    ("pays_no_mistake", {"stopped_early"}),
    ("takes_errors", {"error_copied"}),
])  # fmt: skip
def test_what_was_planted_is_found_by_its_probe(tried: Any, name: str, probes: set[str]) -> None:
    assert tried(name) == probes


def test_without_tools_no_transcript_is_tried(tried: Any) -> None:
    assert tried("pays_calls", None) == set()


def test_a_run_with_such_a_reward_is_refused(tmp_path: Path, write_rows: Any) -> None:
    file = tmp_path / "weak.py"
    file.write_text(WEAK)
    rows = [{"prompt": [{"role": "user", "content": "What is 2 + 2?"}], "answer": "4",
             "completions": ["<answer>4</answer>", "<answer>5</answer>"],
             "labels": [True, False]}]  # fmt: skip
    labelled = write_rows("labelled.jsonl", rows)
    component = RewardComponent.model_validate({"function": "believes", "file": str(file)})
    probes = ProbesRecipe.model_validate({"completions": str(labelled)})
    task = Task(rows[0]["prompt"], {"answer": "4"}, Origin("t.jsonl", 1))
    with pytest.raises(RewardError, match="tool_faked: held 0 of 1"):
        defend([component], probes, [task], lambda text: [0], EXAMPLE)
