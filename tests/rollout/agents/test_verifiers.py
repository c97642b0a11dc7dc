"""Whole environments of the real verifiers: tasksets, tool servers, harnesses and rubrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from strop.engines.engine import Request
from strop.recipe.loading.load import load_recipe
from strop.train.run import train
from tests.support.agents import played, speaker, texts
from tests.support.runs import final_weights, metrics, same, weights, write_jsonl
from tests.support.talkers import talker
from tests.support.templates import PLAIN, TOOLS

HERE = Path(__file__).parent
CALL = '<tool_call>{"name": "add", "arguments": {"a": 2, "b": 3}}</tool_call>'

NUMBERS = {n: {"title": n.upper(), "type": "integer"} for n in ("a", "b")}
TOLD = {
    "name": "add",
    "description": "Add two numbers.",
    "parameters": {
        "type": "object", "properties": NUMBERS, "required": ["a", "b"], "title": "addArguments",
    },
}  # fmt: skip
"""The tool as the chat program tells of it."""

pytestmark = pytest.mark.verifiers


def adds(prompt: str, request: Request) -> str:
    """Calls the tool of the first task and says its result; guesses the second one wrongly."""
    if "4 + 4" in prompt:
        return "It is 9."
    return "It is 5." if "tool\n5" in prompt else CALL


def test_a_taskset_with_a_tool_server_and_a_chat_program(tokenizer: Any) -> None:
    tooled = speaker(tokenizer, TOOLS)
    file = HERE / "with_verifiers.py"
    right, wrong = played(file, tooled, adds, "run", [{"idx": 0}, {"idx": 1}])
    assert (right.reward, wrong.reward) == (1.25, 0.0)
    assert (right.finish, right.facts) == (
        "stop", {"turns": 2.0, "forks": 0.0, "overruled": 0.0, "cut_short": 0.0}
    )  # fmt: skip
    assert [text for text, sampled in texts(tooled, right) if sampled] == [
        f"{CALL}<|im_end|>", "It is 5.<|im_end|>",
    ]  # fmt: skip
    assert sum(right.sampled) == len(right.sampler_logprobs())
    assert [m["role"] for m in right.messages] == ["assistant", "tool", "assistant"]


def test_its_traces_are_our_episodes(tokenizer: Any, tmp_path: Path) -> None:
    """The training client notes the tokens and log-probs that it was given."""
    tooled = speaker(tokenizer, TOOLS)
    tooled.add_tokens(["<tool_call>", "</tool_call>"])  # by which its parser finds calls
    tooled.save_pretrained(tmp_path)
    (episode,) = played(
        HERE / "with_verifiers.py", tooled, adds, "by_tokens",
        [{"idx": 0, "tokenizer": str(tmp_path), "folder": str(tmp_path)}],
    )  # fmt: skip
    (note,) = (json.loads(file.read_text()) for file in tmp_path.glob("*.trace"))
    assert note["reward"] == episode.reward == 1.25
    assert (len(episode.turns), episode.facts["forks"]) == (2, 0.0)
    ((ids, sampled, logprobs),) = note["branches"]
    (branch,) = episode.branches()
    assert tuple(ids[-len(branch.ids) :]) == branch.ids
    assert tuple(sampled[-len(branch.ids) :]) == branch.supervised
    assert sum(sampled) == sum(branch.supervised)
    assert [p for p, own in zip(logprobs, sampled, strict=True) if own] == list(
        episode.sampler_logprobs()
    )


def test_grpo_learns_from_its_rubric(tokenizer: Any, tmp_path: Path) -> None:
    call = {"name": "add", "arguments": {"a": 2, "b": 3}}
    asked = {"role": "user", "content": "What is 2 + 3?"}
    dialogue = [
        asked,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": call}],
        },
        {"role": "tool", "content": "5"},
        {"role": "assistant", "content": "It is 5."},
    ]
    model = talker(
        speaker(tokenizer, TOOLS),
        [dialogue],
        tmp_path / "model",
        tools=[{"type": "function", "function": TOLD}],
    )
    write_jsonl(tmp_path / "tasks.jsonl", [{"prompt": [asked], "idx": 0, "folder": str(tmp_path)}])
    recipe = tmp_path / "grpo.yaml"
    recipe.write_text(f"""
method: grpo
model: {{path: {model}}}
data: [{{path: tasks.jsonl}}]
output: run
rollout:
  group_size: 4
  max_tokens: 80
  environment: {{agent: {{file: {HERE / "with_verifiers.py"}}}}}
reward: [{{function: environment}}]
optim: {{learning_rate: 1.0e-4}}
run: {{steps: 2, batch_size: 1}}
""")
    train(load_recipe(recipe))
    rewards = [json.loads(file.read_text())["reward"] for file in tmp_path.glob("*.trace")]
    rows = metrics(tmp_path / "run")
    assert sorted(rewards)[-1] == 1.25
    assert sum(row["reward"] for row in rows) == pytest.approx(sum(rewards) / 4, abs=1e-6)
    assert all(row["episode/failed"] == 0.0 for row in rows)
    learnt = [row for row in rows if not row["frac_reward_zero_std"]]
    assert learnt
    assert all(row["mismatch/logprob_difference"] < 1e-5 for row in learnt)
    assert not same(weights(model), final_weights(tmp_path / "run"))


def test_the_training_client(tokenizer: Any, tmp_path: Path) -> None:
    """It renders by itself and asks for tokens; both turns are one path, because its second prompt
    begins with the first one's tokens and the answer's."""
    plain = speaker(tokenizer, PLAIN)
    plain.save_pretrained(tmp_path)
    (episode,) = played(
        HERE / "train_client.py", plain, lambda prompt, request: "So it is.", "run",
        [{"tokenizer": str(tmp_path)}],
    )  # fmt: skip
    assert (episode.finish, len(episode.turns), episode.facts["forks"]) == ("stop", 2, 0.0)
    assert episode.reward == sum(episode.sampler_logprobs()) == -0.5 * sum(episode.sampled)
    written = [text for text, sampled in texts(plain, episode) if sampled]
    assert written == ["So it is.<|im_end|>"] * 2
