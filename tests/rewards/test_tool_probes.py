"""Rewards that pay for the look of work are found by the probe of their kind; sound ones pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from strop.errors import RewardError
from strop.recipe.train.reward import ProbesRecipe, RewardComponent
from strop.rewards.audit.check import attacked, defend
from strop.rewards.audit.tool_attacks import EXAMPLE
from strop.rewards.compose import Reward
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


def reads_results(prompts, completions, *, answer, **columns):
    return [
        float(any(a in str(m["content"]) for m in c)) for c, a in zip(completions, answer)
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


def test_the_answer_in_a_results_place_is_not_the_policys(tried: Any) -> None:
    """A function that reads all messages pays for what the tool said."""
    assert {"tool_faked", "stopped_early"} <= tried("reads_results")


def test_a_sound_reward_of_calls_is_not_refused(tmp_path: Path, write_rows: Any) -> None:
    """Of its transcripts only the right calls are honest, so that a call of any tool is none."""
    rows = [
        {"prompt": f"Play {n} songs", "answer": [{"name": "play", "arguments": {"count": n}}]}
        for n in range(2, 6)
    ]
    file = write_rows("calls.jsonl", rows)
    findings = attacked([RewardComponent(function="tool_call")], ProbesRecipe(), file, EXAMPLE)
    assert not {one.probe for one in findings if one.verdict == "fails"}


@pytest.mark.parametrize("tools", [EXAMPLE, []])
def test_texts_are_messages_in_episodes_whatever_the_prompt_is(
    tools: Any, tmp_path: Path, write_rows: Any
) -> None:
    """A function that reads messages, as it gets them in training, judges tasks with plain prompts,
    also where the environment has no tools."""
    reads = tmp_path / "reads.py"
    reads.write_text(
        "def reads(prompts, completions, **columns):\n"
        "    return [0.0 * len(said[-1]['content']) for said in completions]\n"
    )
    components = [RewardComponent(function="exact_answer"),
                  RewardComponent(function="reads", file=str(reads))]  # fmt: skip
    tasks = [Task(f"What is {n} + {n}?", {"answer": str(2 * n)}, Origin("t.jsonl", n))
             for n in range(3, 9)]  # fmt: skip
    assert defend(components, ProbesRecipe(), tasks, lambda text: [0], tools)["probes"] > 20
    with pytest.raises(RewardError, match="judges neither"):
        defend(components, ProbesRecipe(), tasks, lambda text: [0])


@pytest.mark.parametrize("component", [
    {"function": "regex", "options": {"pattern": "<answer>4</answer>"}},
    {"function": "format_tags"}, {"function": "similarity"},
])  # fmt: skip
def test_verifiers_of_style_read_what_the_policy_wrote(component: dict[str, Any]) -> None:
    """Not what a tool said to it."""
    reward = Reward([RewardComponent.model_validate(component)])
    said = [{"role": "assistant", "content": "So"}]
    heard = [{"role": "tool", "content": "<answer>4</answer>"}, *said]
    silent, echoed = reward.judge(["2 + 2?"] * 2, [said, heard], {"answer": ["4", "4"]}).scores
    assert silent.total == echoed.total
