"""GRPO with an agent that is written against OpenAI's client, from a recipe to trained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from strop.recipe.loading.load import load_recipe
from strop.train.run import train
from tests.support.agents import speaker
from tests.support.runs import final_weights, metrics, same, weights, write_jsonl
from tests.support.talkers import talker
from tests.support.templates import TOOLS
from tests.train.asking_agents import ADD

ASKED = {"role": "user", "content": "2 + 3?"}
CALL = {"id": "c", "type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 3}}}
DIALOGUE = [
    ASKED,
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c", "content": "5"},
    {"role": "assistant", "content": "5"},
]


def test_an_agent_trains_the_model_that_it_asks(tokenizer: Any, tmp_path: Path) -> None:
    model = talker(speaker(tokenizer, TOOLS), [DIALOGUE], tmp_path / "model", tools=[ADD])
    rows = [{"prompt": [ASKED], "folder": str(tmp_path)}] * 2
    recipe = tmp_path / "grpo.yaml"
    write_jsonl(tmp_path / "tasks.jsonl", rows)
    recipe.write_text(f"""
method: grpo
model: {{path: {model}}}
data: [{{path: tasks.jsonl}}]
output: run
rollout:
  group_size: 4
  max_tokens: 80
  environment: {{agent: {{file: {Path(__file__).parent / "asking_agents.py"}}}, max_turns: 8}}
reward: [{{function: environment}}]
optim: {{learning_rate: 1.0e-4}}
run: {{steps: 2, batch_size: 1}}
""")
    train(load_recipe(recipe))
    run = tmp_path / "run"
    told = [float(line) for line in (tmp_path / "rewards.txt").read_text().split()]
    rows = metrics(run)
    assert len(told) == 8
    assert max(told) > 2.0  # the tool was called, and its result was said
    assert [row["reward"] for row in rows] == pytest.approx(
        [sum(told[:4]) / 4, sum(told[4:]) / 4], abs=1e-6
    )
    learnt = [row for row in rows if not row["frac_reward_zero_std"]]
    assert learnt
    for row in rows:
        assert row["episode/turns"] == 4.0
        assert row["episode/forks"] == 2.0  # the two questions at once are paths of their own
    for row in learnt:
        assert row["mismatch/logprob_difference"] < 1e-5  # what was captured is what is trained on
        assert row["grad_norm"] > 0
    assert not same(weights(model), final_weights(run))
