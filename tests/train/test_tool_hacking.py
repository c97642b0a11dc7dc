"""Habits of using tools are watched during training: what was planted rings, a clean run does
not."""

from __future__ import annotations

import random
from typing import Any

from strop.episodes import Episode, Turn
from strop.recipe.train.reward import RewardComponent
from strop.rewards.audit.symptoms import habits_of, symptoms
from strop.text.tool_habits import TOOL_HABITS
from strop.train.monitor.hacking import Habits
from strop.types import Origin, Rollout, Score, ScoredGroup, Task, VersionSpan

PROMPT = [{"role": "user", "content": "What is 391 * 27?"}]
RIGHT = [RewardComponent(function="exact_answer", name="right")]
RINGS = 6.5
"""The threshold of the alarm `habits`."""


def episode(*, spam: bool) -> Episode:
    made = {"id": "call00000", "type": "function",
            "function": {"name": "calculate", "arguments": {"expression": "391 * 27"}}}  # fmt: skip
    turn = [{"role": "assistant", "content": None, "tool_calls": [made]},
            {"role": "tool", "content": "10557"}]  # fmt: skip
    said: list[dict[str, Any]] = turn * (4 if spam else 1)
    said.append({"role": "assistant", "content": "Multiplied, that makes 10557 in all."})
    return Episode(
        str(said[-1]["content"]), "stop", (5, 6), (True, True), (-0.1, -0.1),
        versions=(VersionSpan(0, 2, 0),), turns=(Turn(2),), messages=tuple(said),
    )  # fmt: skip


def step(draw: random.Random, share: float) -> dict[str, float]:
    """The metrics of a step of 16 groups of 8 episodes, so many of which spam."""
    groups = []
    for _ in range(16):
        episodes = tuple(episode(spam=draw.random() < share) for _ in range(8))
        task = Task(PROMPT, {}, Origin("t.jsonl", 1))
        scores = tuple(Score(1.0, {"right": 1.0}) for _ in episodes)
        groups.append(ScoredGroup(Rollout(task, (1,), episodes), scores))
    row = symptoms(RIGHT, groups, [habits_of(group) for group in groups])
    return row | {"completions/count": 128.0}


def heard(*shares: float) -> tuple[float, str]:
    """The highest z over a run, and what is said of it then."""
    habits, draw, highest, said = Habits(), random.Random(0), 0.0, ""
    for share in shares:
        z = habits.measure(step(draw, share)) or 0.0
        if z > highest:
            highest, said = z, habits.explain(z)
    return highest, said


def test_shares_are_logged_for_episodes() -> None:
    row = step(random.Random(0), 1.0)
    assert row["hack/tool_spam"] == 1.0
    assert [row[f"hack/{name}"] for name in TOOL_HABITS if name != "tool_spam"] == [0.0] * 4
    assert step(random.Random(0), 0.0)["hack/tool_spam"] == 0.0


def test_spam_that_becomes_common_rings() -> None:
    z, said = heard(0.05, 0.05, 0.05, 0.2, 0.4, 0.6)
    assert z > RINGS
    assert "`tool_spam`" in said
    assert "makes the same call at least three times" in said


def test_a_clean_run_is_quiet() -> None:
    assert heard(*[0.05] * 20) == (0.0, "")
