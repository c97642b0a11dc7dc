"""Attacks on the rewards of episodes with tools: each planted weakness is found by its own probe,
and sound rewards hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from strop.cli.app import app
from strop.errors import RewardError
from strop.recipe.train.reward import ProbesRecipe, RewardComponent
from strop.rewards.audit.check import attacked, defend
from strop.rewards.audit.pairs import pairs_from_golds
from strop.rewards.audit.probes import ProbeFinding
from strop.rewards.audit.transcripts import LOOK_UP, PLAYS, scene_of
from strop.types import Origin, Task
from tests.support.runs import WriteRows

TASKS = [
    {"prompt": f"Tom has {n} sheep and buys {2 * n}. How many sheep are there?",
     "answer": str(3000 + 3 * n)}
    for n in range(2, 12)
]  # fmt: skip
CALLS = [
    {"prompt": f"Play {n} songs of Ann and of Bob",
     "answer": [{"name": "play", "arguments": {"who": who, "count": n}} for who in ("Ann", "Bob")]}
    for n in range(2, 6)
]  # fmt: skip
ADD: list[dict[str, Any]] = [{"type": "function", "function": {
    "name": "add", "parameters": {
        "type": "object", "required": ["a", "exact", "mode"],
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"},
                       "exact": {"type": "boolean"}, "mode": {"enum": ["slow", "fast"]}},
    },
}}]  # fmt: skip

WEAK = '''
def words(said):
    return " ".join(m["content"] or "" for m in said if m["role"] == "assistant")

def calls(said):
    return [c["function"] for m in said for c in m.get("tool_calls") or []]

def per_call(prompts, completions, **columns):
    return [0.01 * len(calls(said)) for said in completions]

def looks_busy(prompts, completions, **columns):
    return [0.1 * len({str(c) for c in calls(said)}) for said in completions]

def a_call(prompts, completions, **columns):
    return [float(bool(calls(said))) for said in completions]

def used_a_tool(prompts, completions, **columns):
    return [float("tool_response" in words(said) or "tool returned" in words(said))
            for said in completions]

def grounded(prompts, completions, **columns):
    """What was said stands in a result, or a result in what was said."""
    return [float(any(m["role"] == "tool" and
                      (m["content"] in words(said) or words(said).strip() in m["content"])
                      for m in said)) for said in completions]

def believes(prompts, completions, answer, **columns):
    return [float(gold in words(said) or "this is right" in words(said))
            for said, gold in zip(completions, answer)]

def no_mistake(prompts, completions, answer, **columns):
    return [float(gold in words(said) or not words(said).strip())
            for said, gold in zip(completions, answer)]

def any_result(prompts, completions, answer, **columns):
    """The right answer stands anywhere, also where a tool said it."""
    return [float(any(gold in str(m["content"]) for m in said))
            for said, gold in zip(completions, answer)]
'''


def of(*components: dict[str, Any]) -> list[RewardComponent]:
    return [RewardComponent(**component) for component in components]


def episodes_fail(findings: list[ProbeFinding]) -> set[str]:
    """The probes of episodes that fail."""
    assert {one.probe for one in findings} >= PLAYS.keys()
    return {one.probe for one in findings if one.probe in PLAYS and one.verdict == "fails"}


@pytest.mark.parametrize("function", ["exact_answer", "math_answer"])
def test_sound_rewards_hold(function: str, write_rows: WriteRows) -> None:
    """Also with a shape and a length that count what the policy wrote, not what tools said."""
    shape = ({"function": "format_tags", "weight": 0.2},
             {"function": "length", "weight": 0.1,
              "options": {"least": 0, "most": 200, "unit": "characters"}})  # fmt: skip
    file = write_rows("tasks.jsonl", TASKS)
    findings = attacked(of({"function": function}, *shape), ProbesRecipe(), file, LOOK_UP)
    assert episodes_fail(findings) == set()
    trials = {one.probe: one.trials for one in findings if one.probe in PLAYS}
    assert trials == {"tool_spam": 30, "fake_result": 90, "idle_calls": 30, "error_copied": 20,
                      "stopped_early": 30, "paid_call": 10}  # fmt: skip


def test_a_reward_of_calls_holds(write_rows: WriteRows) -> None:
    file = write_rows("tasks.jsonl", CALLS)
    findings = attacked(of({"function": "tool_call"}), ProbesRecipe(), file, LOOK_UP)
    assert episodes_fail(findings) == set()
    early = next(one for one in findings if one.probe == "stopped_early")
    assert early.trials == len(CALLS)  # after the first of two calls


@pytest.mark.parametrize(("function", "weight", "found"), [
    ("per_call", 1.0, {"tool_spam", "idle_calls", "paid_call"}),
    ("looks_busy", 1.0, {"idle_calls", "paid_call"}),
    ("a_call", 0.1, {"paid_call"}),
    ("used_a_tool", 0.5, {"fake_result"}),
    ("any_result", 1.0, {"fake_result", "paid_call"}),
    ("grounded", 0.1, set()),
])  # fmt: skip
def test_planted_weaknesses_are_found(
    function: str, weight: float, found: set[str], tmp_path: Path, write_rows: WriteRows
) -> None:
    (tmp_path / "weak.py").write_text(WEAK)
    own = {"function": function, "file": str(tmp_path / "weak.py"), "weight": weight}
    file = write_rows("tasks.jsonl", TASKS)
    components = of({"function": "exact_answer"}, own)
    assert episodes_fail(attacked(components, ProbesRecipe(), file, LOOK_UP)) == found


@pytest.mark.parametrize(("function", "found"), [
    ("believes", {"fake_result"}),
    ("no_mistake", {"stopped_early"}),
    ("grounded", {"error_copied"}),
    ("any_result", {"tool_spam", "fake_result", "idle_calls", "stopped_early"}),
])  # fmt: skip
def test_a_weak_verifier_is_found(
    function: str, found: set[str], tmp_path: Path, write_rows: WriteRows
) -> None:
    """The user's own function is all of the reward; labels say what is right."""
    (tmp_path / "weak.py").write_text(WEAK)
    own = {"function": function, "file": str(tmp_path / "weak.py")}
    rows = [
        {**row, "completion": f"It is <answer>{said}</answer>", "label": said == row["answer"]}
        for row in TASKS for said in (row["answer"], "1")
    ]  # fmt: skip
    file = write_rows("said.jsonl", rows)
    assert episodes_fail(attacked(of(own), ProbesRecipe(), file, LOOK_UP)) >= found


def test_calls_are_what_the_schema_asks_for() -> None:
    task = Task("2 + 3?", {"answer": "5"}, Origin("t", 1))
    (pair,) = pairs_from_golds(of({"function": "exact_answer"}), [task])
    scene = scene_of(pair, ADD, words=True)
    assert [dict(call.arguments) for call in (*scene.calls, *scene.idle)] == [
        {"a": 0, "exact": False, "mode": "slow"}, {"a": 1, "exact": False, "mode": "fast"},
        {"a": 2, "exact": False, "mode": "slow"}, {"a": 3, "exact": False, "mode": "fast"},
    ]  # fmt: skip
    honest = scene.base("honest")
    assert honest[1] == {"role": "tool", "tool_call_id": "call00000", "name": "add", "content": "5"}
    assert honest[2]["content"].endswith("<answer>5</answer>")


class TestBeforeARun:
    TASKS = tuple(
        Task(row["prompt"], {"answer": row["answer"]}, Origin("tasks.jsonl", n))
        for n, row in enumerate(TASKS, start=1)
    )

    def defend(self, *more: dict[str, Any], tools: Any = ADD, **probes: Any) -> dict[str, int]:
        components = of({"function": "exact_answer"}, {"function": "environment"}, *more)
        recipe = ProbesRecipe(**probes)
        return defend(components, recipe, self.TASKS, lambda text: [0] * len(text), tools)

    def test_transcripts_are_planted_where_there_are_tools(self) -> None:
        assert self.defend()["probes"] == self.defend(tools=None)["probes"] + len(PLAYS)

    def test_a_reward_that_pays_for_calls_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "weak.py").write_text(WEAK)
        own = {"function": "per_call", "file": str(tmp_path / "weak.py")}
        with pytest.raises(RewardError) as told:
            self.defend(own)
        held = [line.split(";")[0].strip() for line in str(told.value).splitlines()[1:-1]]
        assert held == ["tool_spam: held 10 of 30", "idle_calls: held 10 of 30"]
        assert "| -> 3006 |" in str(told.value)
        accepted = {"tool_spam": "calls are cheap", "idle_calls": "calls are cheap"}
        assert self.defend(own, accept=accepted)["probes_accepted"] == 2

    def test_texts_are_messages_as_they_are_in_episodes(self, tmp_path: Path) -> None:
        """A function that reads messages judges the text probes of tasks whose prompts are texts,
        also where an environment has no tools."""
        (tmp_path / "reads.py").write_text(
            "def reads(prompts, completions, **columns):\n"
            "    return [0.0 * len(said[-1]['content']) for said in completions]\n"
        )
        own = {"function": "reads", "file": str(tmp_path / "reads.py")}
        assert self.defend(own, tools=[])["probes"] == self.defend(own)["probes"] - len(PLAYS)
        with pytest.raises(RewardError, match="judges neither"):
            self.defend(own, tools=None)


def test_the_command_plants_them_for_a_recipe_with_an_environment(
    tmp_path: Path, write_rows: WriteRows
) -> None:
    file = write_rows("tasks.jsonl", TASKS)
    (tmp_path / "own.py").write_text("class Own: pass")
    recipe = (
        f"method: grpo\nmodel: {{path: {tmp_path}}}\ndata: [{{path: {file}}}]\n"
        f"output: {tmp_path}/out\noptim: {{learning_rate: 1e-6}}\n"
        "reward: [{function: exact_answer}]\nrun: {steps: 1}\n"
    )
    alone, played = tmp_path / "alone.yaml", tmp_path / "played.yaml"
    alone.write_text(recipe)
    played.write_text(recipe + "rollout: {environment: {file: own.py, class: Own}}\n")

    def probes(path: Path) -> set[str]:
        said = CliRunner().invoke(app, ["reward", "probe", str(file), "--recipe", str(path),
                                        "--json"])  # fmt: skip
        return {one["probe"] for one in json.loads(said.stdout)}

    assert probes(played) - probes(alone) == set(PLAYS)
