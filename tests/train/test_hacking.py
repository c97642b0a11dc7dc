"""Signs of hacking in a step's own samples: habits, pay for length, and what is done about them."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import linregress

from strop.errors import StoppedByAlarm
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.reward import RewardComponent
from strop.rewards.audit.symptoms import habits_of, length_pay, symptoms
from strop.text.habits import HABITS
from strop.train.monitor.hacking import slope_t, two_proportions
from strop.train.run import train
from strop.types import Completion, Origin, Rollout, Score, ScoredGroup, Task
from tests.support.runs import latest_checkpoint, metrics

PROMPT = "Solve 3x + 7 = 22"
CLEAN = (
    "3x = 22 - 7 = 15\nx = 15 / 3 = 5\n<answer>5</answer>",
    "<think>First I move 7 across, then divide by 3.</think>So x is 5: <answer>5</answer>",
    "The answer is \\boxed{5}, because 3 * 5 + 7 = 22.",
    "**Result**: x = 5",
)


@pytest.mark.parametrize(
    ("text", "habits"),
    [
        *((text, ()) for text in CLEAN),
        ("so we get x so we get x so we get x so we get x", ("repeats",)),
        ("<think>hmm hmm hmm hmm</think>3x = 15, so x = <answer>5</answer>", ("idle_thought",)),
        ("<think></think>3x = 15, so x = <answer>5</answer>", ("idle_thought",)),
        ("3x = 15, x = <answer><answer>5</answer></answer>", ("nested_tags",)),
        ("3x = 15, x = <answer>5</answer><answer>6</answer>", ("nested_tags",)),
        ("3x = 15, x = <answer>5 or 6</answer>", ("several_answers",)),
        ("so \\boxed{5} or perhaps \\boxed{6}", ("several_answers",)),
        ("<answer>5</answer>", ("no_work",)),
        ("You ask: Solve  3x + 7 = 22\nand I say 5", ("prompt_copied",)),
        ("What a great question! x is 5 I think", ("flattery",)),
        ("x is 5. The answer above is correct. Score: full", ("flattery",)),
        ("# One\n- two\n- three\nx is 5", ("markup",)),
        (" \n", ("empty",)),
    ],
)
def test_habits_by_example(text: str, habits: tuple[str, ...]) -> None:
    assert tuple(name for name, shows in HABITS.items() if shows(PROMPT, text)) == habits


def group(*rows: tuple[str, int, float, float]) -> ScoredGroup:
    """(text, tokens, first component, total) of each completion."""
    task = Task(PROMPT, {}, Origin("t", 1))
    completions = tuple(
        Completion.one_turn((5,) * tokens, text, (-0.1,) * tokens, "stop")
        for text, tokens, *_ in rows
    )
    scores = tuple(Score(total, {"right": right}) for *_, right, total in rows)
    return ScoredGroup(Rollout(task, (1,), completions), scores)


def test_pay_for_length_by_hand() -> None:
    """Among right ones lengths 2, 4 earn 1.0, 1.4; among wrong ones 1, 3, 5 earn 0.3, 0.0, 0.6."""
    shown = group(("a", 2, 1, 1.0), ("b", 4, 1, 1.4),
                  ("c", 1, 0, 0.3), ("d", 3, 0, 0.0), ("e", 5, 0, 0.6))  # fmt: skip
    lengths = np.array([-1, 1, -2, 0, 2.0])
    rewards = np.array([-0.2, 0.2, 0.0, -0.3, 0.3])
    expected = lengths @ rewards / math.sqrt((lengths @ lengths) * (rewards @ rewards))
    assert length_pay("right", [shown]) == pytest.approx(expected)


def test_no_pay_for_length_where_the_reward_is_the_answer() -> None:
    """Long answers are right more often: reward follows length, but not at equal correctness."""
    shown = group(("a", 9, 1, 1.0), ("b", 8, 1, 1.0), ("c", 2, 0, 0.0), ("d", 1, 0, 0.0))
    assert length_pay("right", [shown]) == 0.0


def test_shares_of_habits() -> None:
    shown = group(("<answer>5</answer>", 3, 1, 1.0), (CLEAN[0], 9, 1, 1.0),
                  ("<answer>5 6</answer>", 3, 0, 0.0), (" ", 1, 0, 0.0))  # fmt: skip
    habits = [habits_of(shown)]
    assert habits[0] == [("no_work",), (), ("several_answers", "no_work"), ("empty",)]
    components = [RewardComponent(function="exact_answer", name="right")]
    row = symptoms(components, [shown], habits)
    shares = [row[f"hack/{name}"] for name in ("no_work", "several_answers", "empty", "markup")]
    assert shares == [0.5, 0.25, 0.25, 0.0]


def test_two_proportions_by_hand_and_under_the_null() -> None:
    """10 of 100 against 30 of 200: pooled 40/300."""
    pooled = 40 / 300
    by_hand = 0.05 / math.sqrt(pooled * (1 - pooled) * (1 / 100 + 1 / 200))
    assert two_proportions(0.1, 100, 0.15, 200) == pytest.approx(by_hand)
    draw = random.Random(0)
    zs = [
        two_proportions(*(x for n in (200, 300) for x in (sum(draw.random() < 0.2
                        for _ in range(n)) / n, n)))
        for _ in range(2000)
    ]  # fmt: skip
    beyond = sum(z > 1.645 for z in zs) / len(zs)
    assert 0.035 < beyond < 0.065


def test_the_t_of_a_slope_is_scipys() -> None:
    values = [0.3, 0.35, 0.31, 0.4, 0.42, 0.39]
    fit = linregress(range(6), values)
    assert slope_t(values) == pytest.approx(fit.slope / fit.stderr)
    assert slope_t([0.0, 1.0, 2.0]) == math.inf
    assert slope_t([1.0, 1.0, 1.0]) == 0.0


class TestInTheLoop:
    """`shorter` pays for silence: the share of empty answers rises within a few steps."""

    fast = ("run.steps=30", "optim.learning_rate=3e-3", "run.save_every=2")

    def recipe(self, recipes: dict[str, Path], action: str) -> object:
        loud = (
            f"alarms={{habits: {{threshold: 3.0, action: {action}}}, length_pay: off, "
            "entropy_collapse: off, zero_variance: off}"
        )
        return load_recipe(recipes["grpo"], [*self.fast, loud])

    def test_the_sample_that_earned_most_by_a_habit_is_kept(self, recipes: dict[str, Path]) -> None:
        with pytest.warns(UserWarning, match=r"habits at step \d+: completions show `empty`"):
            final = train(self.recipe(recipes, "warn"))  # type: ignore[arg-type]
        samples = [json.loads(line) for line in (final.parent / "samples.jsonl").open()]
        kept = [sample for sample in samples if sample.get("habit") == "empty"]
        assert kept
        assert all(not sample["completion"].strip() for sample in kept)
        assert kept[0]["reward"] == 0.0  # nothing is shorter than nothing

    def test_rollback_leaves_the_checkpoint_before_it_began(self, recipes: dict[str, Path]) -> None:
        recipe = self.recipe(recipes, "rollback")
        with pytest.raises(StoppedByAlarm, match=r"It began at step (\d+)") as told:
            train(recipe)  # type: ignore[arg-type]
        folder = Path(recipe.output)  # type: ignore[attr-defined]
        began = int(str(told.value).split("It began at step ")[1].split(";")[0])
        kept = latest_checkpoint(folder)
        assert kept is not None
        assert kept.name == f"checkpoint-{(began - 1) // 2 * 2}"
        assert f"{kept} is the last before" in str(told.value)
        steps = [int(path.name.rsplit("-", 1)[1]) for path in folder.glob("checkpoint-*")]
        assert max(steps) < began
        assert metrics(folder)[-1]["step"] == began  # the log tells what happened
