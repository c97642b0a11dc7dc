from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Sampling
from strop.errors import RewardError, UnscoredError
from strop.recipe.train.reward import RewardComponent
from strop.rewards.answer.read import final_answer
from strop.rewards.compose import Reward
from strop.rewards.exact import exact_answer
from strop.rewards.style import format_tags
from strop.rollout.collect import collect
from strop.train.loop.state import Streaks
from strop.train.loop.unscored import expect_scored
from strop.types import Completion, Origin, Rollout, Score, ScoredGroup, Task


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>5</answer>", "5"),
        ("first 3, then <answer> 5 </answer> and 7", "5"),
        (r"so \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        ("3 + 4 = 7\n#### 1,234", "1,234"),
        ("it costs $1,234.50.", "1,234.50"),
        ("half, so -1/2", "-1/2"),
        ("from 3 to 12 apples", "12"),
        ("none", None),
    ],
)
def test_final_answer(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("said", "gold", "score"),
    [
        ("<answer>5</answer>", "5", 1.0),
        ("<answer>5.0</answer>", "5", 1.0),
        ("<answer>1/2</answer>", "0.5", 1.0),
        ("#### 1,000", "long work\n#### 1000", 1.0),
        ("the answer is 18.", 18, 1.0),
        (r"\boxed{ x  + 1 }", r"\boxed{X + 1}", 1.0),
        ("<answer>6</answer> 5", "5", 0.0),
        ("no number", "5", 0.0),
        ("1/0", "5", 0.0),
        ("5", "", None),
        ("5", None, None),
        # a number with several words behind it, at the end of what is said
        ("386 + 286 = 672 grams of sugar.", "672 grams of sugar", 1.0),
        ("386 + 286 = 672 grams of salt", "672 grams of sugar", 0.0),
        ("386 + 286 = 673 grams of sugar", "672 grams of sugar", 0.0),
        ("672 grams of sugar and 5 eggs", "672 grams of sugar", 0.0),
        # tags in tags name no single answer, also where only one of the parts is a number
        ("<answer><answer>150 pencils</answer>none of these</answer>", "150 pencils", 0.0),
        ("<answer>150 pencils<answer>none of these</answer></answer>", "150 pencils", 0.0),
        ("<answer><answer>5</answer>7</answer>", "7", 0.0),
        ("<answer>150 pencils</answer></answer>", "150 pencils", 1.0),
    ],
)
def test_exact_answer(said: str, gold: object, score: float | None) -> None:
    assert exact_answer(["p"], [said], answer=[gold]) == [score]


def test_chat_completions_are_read() -> None:
    completion = [{"role": "assistant", "content": "<answer>5</answer>"}]
    assert exact_answer(["p"], [completion], answer=["5"]) == [1.0]
    assert format_tags(["p"], [completion]) == [1.0]


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("<think>a</think><answer>5</answer>", 1.0),
        ("<answer>5</answer>", 0.5),
        ("<answer>5</answer><answer>6</answer>", 0.0),
        ("<answer></answer>", 0.0),
        ("</answer>5<answer>", 0.0),
        ("<answer>5", 0.0),
    ],
)
def test_format_tags(text: str, share: float) -> None:
    assert format_tags(["p"], [text], tags=["think", "answer"]) == [share]


class TestComposition:
    def reward(self, *components: dict[str, Any]) -> Reward:
        return Reward([RewardComponent(**component) for component in components])

    def user_file(self, folder: Path, body: str) -> str:
        path = folder / "rewards.py"
        path.write_text(body)
        return str(path)

    def test_weighted_sum_with_components_kept(self) -> None:
        reward = self.reward(
            {"function": "exact_answer", "weight": 1.0},
            {"function": "format_tags", "weight": 0.2, "name": "tags"},
        )
        judged = reward.judge(["p", "p"], ["<answer>5</answer>", "5"], {"answer": ["5", "5"]})
        assert [s.total for s in judged.scores] == [1.2, 1.0]
        assert judged.scores[1].components == {"exact_answer": 1.0, "tags": 0.0}

    def test_options_reach_the_function(self) -> None:
        reward = self.reward({"function": "format_tags", "options": {"tags": ["think"]}})
        assert reward.judge(["p"], ["<think>a</think>"], {}).scores[0].total == 1.0

    @pytest.mark.parametrize(
        ("body", "error"),
        [
            ("def f(prompts, completions, **c): raise KeyError('answer')", "KeyError: 'answer'"),
            ("def f(prompts, completions, **c): return [1.0]", "1 values for 2 completions"),
            ("def f(prompts, completions, **c): return ['good', 'bad']", "ValueError"),
            ("def f(prompts, completions): return [1, 1]", "TypeError"),
        ],
    )
    def test_a_failing_reward_leaves_its_samples_unscored(
        self, tmp_path: Path, body: str, error: str
    ) -> None:
        path = self.user_file(tmp_path, body)
        reward = self.reward({"function": "format_tags"}, {"file": path, "function": "f"})
        judged = reward.judge(["p", "p"], ["a", "b"], {"answer": ["1", "2"]})
        assert [s.total for s in judged.scores] == [None, None]
        assert [s.components["format_tags"] for s in judged.scores] == [0.0, 0.0]
        assert error in judged.failures[0].error

    def test_none_and_nan_are_unscored_one_by_one(self, tmp_path: Path) -> None:
        path = self.user_file(
            tmp_path, "def f(prompts, completions, **c): return [None, float('nan'), 2]"
        )
        judged = self.reward({"file": path, "function": "f"}).judge(["p"] * 3, ["a"] * 3, {})
        assert [s.total for s in judged.scores] == [None, None, 2.0]
        assert not math.isnan(judged.scores[1].components["f"] or 0.0)

    def test_unknown_reward_names_the_known_ones(self) -> None:
        with pytest.raises(RewardError, match="exact_answer, math_answer"):
            self.reward({"function": "exakt"})

    def test_bad_user_files(self, tmp_path: Path) -> None:
        path = self.user_file(tmp_path, "def g(prompts, completions, **c): return []")
        with pytest.raises(RewardError, match=r"no function 'f'[\s\S]*it has g"):
            self.reward({"file": path, "function": "f"})
        path = self.user_file(tmp_path, "import nowhere_to_be_found")
        with pytest.raises(RewardError, match="cannot be imported: ModuleNotFoundError"):
            self.reward({"file": path, "function": "f"})
        with pytest.raises(RewardError, match="no such Python file"):
            self.reward({"file": str(tmp_path / "none.py"), "function": "f"})


class Parrot:
    """An engine that says the same to everything."""

    def generate(self, requests: Any) -> Any:
        return (
            (n, Completion.one_turn((5, 2), "5", (-0.1, -0.1), "stop"))
            for n in range(len(requests))
        )


class TestCollect:
    TASKS = (PromptedTask(Task("p", {"answer": "5"}, Origin("t.jsonl", 1)), (1, 4)),)

    def collect(self, reward: Reward) -> Any:
        return collect(
            self.TASKS, Parrot(), reward.judge_rollouts,
            group_size=3, sampling=Sampling(), key=DrawKey(0, "training"),
        )  # fmt: skip

    def test_columns_reach_the_reward_and_groups_keep_their_scores(self) -> None:
        collected = self.collect(Reward([RewardComponent(function="exact_answer")]))
        assert [s.total for s in collected.groups[0].scores] == [1.0, 1.0, 1.0]

    def test_two_rewards_for_two_kinds_of_task(self, tmp_path: Path) -> None:
        """Each is `None` on the other's tasks: the message says what to write, and that works."""
        path = tmp_path / "kinds.py"
        path.write_text(
            "def odd(prompts, completions, **c):\n"
            "    return [1.0 if i % 2 else None for i in range(len(completions))]\n"
            "def even(prompts, completions, **c):\n"
            "    return [None if i % 2 else 0.5 for i in range(len(completions))]\n"
        )
        two = [RewardComponent(function=name, file=str(path)) for name in ("odd", "even")]
        said = "none of 3 .* by every reward: odd scored 1 of 3, even scored 2 of 3"
        with pytest.raises(UnscoredError, match=said) as told:
            self.collect(Reward(two))
        assert "`optional: true`" in str(told.value)
        marked = [one.model_copy(update={"optional": True}) for one in two]
        collected = self.collect(Reward(marked))
        assert [s.total for s in collected.groups[0].scores] == [0.5, 1.0, 0.5]

    def test_a_run_that_stops_says_optional_where_nothing_failed(self, tmp_path: Path) -> None:
        path = tmp_path / "kinds.py"
        path.write_text(
            "def odd(prompts, completions, **c):\n"
            "    return [1.0 if i == 1 else None for i in range(len(completions))]\n"
        )
        component = RewardComponent(function="odd", file=str(path))
        groups = self.collect(Reward([component])).groups
        streaks = Streaks()
        for step in ("step 1", "step 2"):
            expect_scored([component], groups, [], streaks, step)
        with pytest.raises(UnscoredError, match="left 67% of the completions unscored") as told:
            expect_scored([component], groups, [], streaks, "step 3")
        assert "`optional: true`" in str(told.value)
        marked = component.model_copy(update={"optional": True})
        for step in ("step 1", "step 2", "step 3", "step 4"):
            expect_scored([marked], groups, [], Streaks(), step)

    def test_episodes_that_failed_are_not_blamed_on_the_reward(self, tmp_path: Path) -> None:
        component = RewardComponent(function="environment")
        task = Task("a", {}, Origin("tasks.jsonl", 1))
        answers = tuple(
            Completion.one_turn((1,), "x", (-0.1,), finish) for finish in ("stop", "error", "error")
        )
        scores = (Score(1.0, {"environment": 1.0}), *[Score(None, {"environment": None})] * 2)
        groups = [ScoredGroup(Rollout(task, (5,), answers), scores)]
        streaks = Streaks()
        for step in ("step 1", "step 2"):
            expect_scored([component], groups, [], streaks, step)
        with pytest.raises(UnscoredError, match="2 of them had failed or were called") as told:
            expect_scored([component], groups, [], streaks, "step 3")
        assert "the environment" in str(told.value.fix)

    def test_a_run_stops_when_nothing_can_be_scored(self, tmp_path: Path) -> None:
        path = tmp_path / "r.py"
        path.write_text("def f(prompts, completions, **c): raise RuntimeError('server down')")
        reward = Reward([RewardComponent(function="f", file=str(path))])
        with pytest.raises(UnscoredError, match=r"none of 3 .* f: RuntimeError: server down"):
            self.collect(reward)
