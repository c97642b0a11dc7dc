"""The online loop: dynamic sampling, overlong shaping, held-out rewards, own pairs, best of n."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.data.order import DataMixture, Part
from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Request
from strop.losses.preference import dpo
from strop.model.network import Policy
from strop.model.reference import Reference
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.methods import Online
from strop.rollout.overlong import with_overlong_penalty
from strop.rollout.source import SynchronousSource, teaches
from strop.text.lengths import overlong_penalty
from strop.train.loop.optim import Optimizers
from strop.train.loop.state import TrainState
from strop.train.methods.ranked import OnlineDpo, Raft, ranked
from strop.train.run import train
from strop.types import (
    Branch,
    Completion,
    Finish,
    Judged,
    Origin,
    Rollout,
    Score,
    ScoredGroup,
    Task,
    Tree,
)
from tests.support.runs import metrics
from tests.support.steps import learn


def state_of(policy: Policy) -> TrainState:
    return TrainState(policy, Optimizers([torch.optim.SGD(policy.trainable(), lr=0.0)]))


def group(*rewards: float | None, lengths: Sequence[int] = (), cut: int | None = None) -> Any:
    answers = tuple(
        Completion.one_turn(
            tuple(range(5 + i, 5 + i + (lengths[i] if lengths else 3))), "x",
            (-0.5,) * (lengths[i] if lengths else 3), "length" if i == cut else "stop",
        )
        for i in range(len(rewards))
    )  # fmt: skip
    rollout = Rollout(Task("p", {}, Origin("t", 1)), (1, 4), answers)
    return ScoredGroup(rollout, tuple(Score(r, {"f": r}) for r in rewards))


class Counting:
    """An engine whose answers say which task they answer, and how often it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[DrawKey]] = []
        self.published: list[Mapping[str, torch.Tensor]] = []

    def publish(self, weights: Mapping[str, torch.Tensor]) -> int:
        self.published.append(weights)
        return len(self.published)

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        self.calls.append([request.key for request in requests])
        for number, request in enumerate(requests):
            task, index = request.prompt.prompt_ids[0], request.key.index
            yield (
                number,
                Completion.one_turn((task, index), f"{task} {index}", (-1.0, -1.0), "stop"),
            )


class EveryThird:
    """Only tasks whose number divides by three have answers that differ."""

    def judge_rollouts(self, rollouts: Sequence[Rollout]) -> Judged:
        scores = []
        for rollout in rollouts:
            for i in range(len(rollout.completions)):
                value = float(i) if rollout.prompt_ids[0] % 3 == 0 else 1.0
                scores.append(Score(value, {"f": value}))
        return Judged(tuple(scores), ())


class TestDynamicSampling:
    def gathered(
        self, recipes: dict[str, Path], resample: int, step: int = 0
    ) -> tuple[Any, Counting]:
        options = [f"rollout={{group_size: 2, max_tokens: 12, resample: {resample}}}"]
        recipe: Online = load_recipe(recipes["dapo"], options)  # type: ignore[assignment]
        tasks = [PromptedTask(Task(str(n), {}, Origin("t", n)), (n,)) for n in range(60)]
        engine = Counting()
        mixture = DataMixture([Part(False, 0, 60, 1.0)], 6, seed=0)
        source = SynchronousSource(
            recipe,
            tasks,
            mixture,
            engine,
            EveryThird(),
            publish=lambda: None,
        )
        return source.next(step, position=step), engine

    def test_equal_groups_give_way_to_others(self, recipes: dict[str, Path]) -> None:
        found, engine = self.gathered(recipes, resample=9)
        useful = [g.rollout.prompt_ids[0] % 3 == 0 for g in found.groups]
        assert useful == [True] * 6
        assert found.rounds == len(engine.calls) > 1
        assert len(found.sampled) == 6 * found.rounds

    def test_without_rounds_left_equal_groups_fill_up(self, recipes: dict[str, Path]) -> None:
        found, engine = self.gathered(recipes, resample=1)
        useful = [g.rollout.prompt_ids[0] % 3 == 0 for g in found.groups]
        seen = [g.rollout.prompt_ids[0] % 3 == 0 for g in found.sampled]
        assert len(found.groups) == 6
        assert 0 < sum(useful) == sum(seen) < 6
        assert len(engine.calls) == 2

    @pytest.mark.parametrize("masks", [True, False])
    def test_a_group_of_masked_answers_teaches_nothing(
        self, masks: bool, recipes: dict[str, Path]
    ) -> None:
        """Both answers were cut at the limit: their rewards differ, and nothing is learnt."""
        options = [f"rollout.mask_truncated={masks}"]
        recipe: Online = load_recipe(recipes["dapo"], options)  # type: ignore[assignment]
        whole, one_cut, equal = group(1.0, 0.0), group(1.0, 0.0, cut=0), group(1.0, 1.0)
        cut = replace(one_cut.rollout.completions[1], finish="length")
        both = (one_cut.rollout.completions[0], cut)
        all_cut = replace(one_cut, rollout=replace(one_cut.rollout, completions=both))
        found = [teaches(recipe, g) for g in (whole, one_cut, all_cut, equal)]
        assert found == [True, True, not masks, False]

    def test_off_it_samples_once(self, recipes: dict[str, Path]) -> None:
        found, engine = self.gathered(recipes, resample=0)
        assert found.rounds == len(engine.calls) == 1
        assert found.groups == found.sampled

    def test_a_resumed_run_draws_the_same_and_rounds_differ(self, recipes: dict[str, Path]) -> None:
        _, first = self.gathered(recipes, resample=3, step=4)
        _, again = self.gathered(recipes, resample=3, step=4)
        assert first.calls == again.calls
        assert [{(key.step, key.round) for key in call} for call in first.calls] == [
            {(4, number)} for number in range(len(first.calls))
        ]
        prompts = [[key.prompt for key in call] for call in first.calls]
        assert prompts[0] != prompts[1]


class TestOverlong:
    @pytest.mark.parametrize(
        ("length", "penalty"), [(1, 0.0), (12, 0.0), (13, -0.125), (16, -0.5), (20, -1.0)]
    )
    def test_penalty_by_hand(self, length: int, penalty: float) -> None:
        """Equation 13 with a limit of 20 tokens and a buffer of 8."""
        assert overlong_penalty(length, 20, 8) == pytest.approx(penalty)

    def test_is_added_and_kept_apart(self) -> None:
        told = with_overlong_penalty(group(1.0, 0.0, None, lengths=(2, 9, 10)), 10, 4)
        assert [s.total for s in told.scores] == [1.0, pytest.approx(-0.75), None]
        assert told.scores[1].components == {"f": 0.0, "overlong": pytest.approx(-0.75)}

    def test_shortens_the_answers_of_a_run(self, recipes: dict[str, Path]) -> None:
        """The reward alone says nothing about length."""
        (recipes["dapo"].parent / "rewards.py").write_text(
            "def shorter(prompts, completions, **columns):\n    return [0.0] * len(completions)\n"
        )
        options = ["rollout={group_size: 8, max_tokens: 16, overlong_buffer: 12}",
                   "optim.learning_rate=5e-3", "run.steps=20", "run.batch_size=8"]  # fmt: skip
        rows = metrics(train(load_recipe(recipes["dapo"], options)).parent)
        lengths = [row["completions/mean_length"] for row in rows]
        assert sum(lengths[-3:]) / 3 < sum(lengths[:3]) / 3 - 2
        assert rows[0]["rewards/overlong/mean"] == pytest.approx(rows[0]["reward"], abs=1e-5)


def test_held_out_tasks_are_judged_by_their_own_reward(recipes: dict[str, Path]) -> None:
    options = ["eval={data: tasks.jsonl, every: 2, samples: 2, reward: [{function: format_tags}]}",
               "run.steps=3"]  # fmt: skip
    rows = metrics(train(load_recipe(recipes["grpo"], options)).parent)
    assert ["eval_reward" in row for row in rows] == [False, True, True]
    assert "eval_rewards/format_tags/mean" in rows[1]
    assert "eval_rewards/shorter/mean" not in rows[1]
    assert "rewards/shorter/mean" in rows[1]
    tasks = len((recipes["grpo"].parent / "tasks.jsonl").read_text().splitlines())
    assert rows[1]["eval_completions/count"] == 2 * tasks


def test_refresh_moves_the_reference(policy: Policy) -> None:
    tree = Tree((1, 2), (Branch((5, 6, 2), (True,) * 3),))
    reference = Reference(policy)
    before = policy.score([tree]).logprobs_N.detach()
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.mul_(1.1)
    moved = policy.score([tree]).logprobs_N.detach()
    assert torch.allclose(reference.scores([tree]).logprobs_N, before, atol=1e-6)
    assert not torch.allclose(moved, before, atol=1e-3)
    assert torch.equal(policy.score([tree]).logprobs_N.detach(), moved)  # weights are back
    reference.refresh()
    assert torch.allclose(reference.scores([tree]).logprobs_N, moved, atol=1e-6)


def test_ranked_is_by_reward_and_leaves_cut_answers_out() -> None:
    scored = group(0.5, None, 2.0, 0.5, 3.0, cut=4)
    assert [r for r, _ in ranked(scored, whole_only=False)] == [3.0, 2.0, 0.5, 0.5]
    assert [c.ids[0] for _, c in ranked(scored, whole_only=True)] == [7, 5, 8]


class TestOwnPairs:
    def learner(self, recipes: dict[str, Path], policy: Policy, *options: str) -> OnlineDpo:
        recipe = load_recipe(recipes["online_dpo"], list(options))
        return OnlineDpo(recipe, state_of(policy), policy, Reference(policy))  # type: ignore[arg-type]

    def test_the_best_against_the_worst_by_hand(
        self, recipes: dict[str, Path], policy: Policy
    ) -> None:
        learner = self.learner(recipes, policy, "objective.beta=0.5")
        with torch.no_grad():
            for parameter in policy.trainable():
                parameter.mul_(1.05)
        groups = [group(0.0, 2.0, 1.0), group(1.0, 1.0), group(None, 1.0)]
        metrics_ = learn(learner, learner.state, groups)
        tree = Tree((1, 4), (Branch((6, 7, 8), (True,) * 3), Branch((5, 6, 7), (True,) * 3)))
        mine = policy.score([tree]).sums_B().detach()
        theirs = learner.reference.scores([tree]).logprobs_N.view(2, 3).sum(1)
        expected = dpo(mine[:1], mine[1:], theirs[:1], theirs[1:], beta=0.5)
        assert metrics_["loss"] == pytest.approx(float(expected), abs=1e-5)
        assert metrics_["skipped/groups"] == 2
        margin = 0.5 * float((mine[0] - theirs[0]) - (mine[1] - theirs[1]))
        assert metrics_["rewards/margins"] == pytest.approx(margin, abs=1e-4)

    def test_starts_at_log_two_and_raises_the_reward(self, recipes: dict[str, Path]) -> None:
        options = ["optim.learning_rate=1e-3", "run.steps=25", "rollout={group_size: 8, "
                   "max_tokens: 16}", "run.batch_size=8"]  # fmt: skip
        rows = metrics(train(load_recipe(recipes["online_dpo"], options), force=True).parent)
        assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
        first, last = (sum(r["reward"] for r in part) / 5 for part in (rows[:5], rows[-5:]))
        assert last > first + 1


class TestBestOf:
    def test_learns_the_best_that_earns_enough(
        self, recipes: dict[str, Path], policy: Policy
    ) -> None:
        recipe = load_recipe(recipes["raft"], ["objective.min_reward=0.5"])
        learner = Raft(recipe, state_of(policy), policy)  # type: ignore[arg-type]
        groups = [group(0.0, 2.0, 1.0), group(0.1, 0.2), group(1.0, 1.0, lengths=(2, 3))]
        metrics_ = learn(learner, learner.state, groups)
        trees = [
            Tree((1, 4), (Branch((6, 7, 8), (True,) * 3),)),
            Tree((1, 4), (Branch((5, 6), (True,) * 2),)),
        ]
        expected = -float(policy.score(trees).logprobs_N.detach().mean())
        assert metrics_["loss"] == pytest.approx(expected, abs=1e-5)
        assert metrics_["skipped/groups"] == 1

    @pytest.mark.parametrize(
        ("finish", "reason"), [("stop", "objective.min_reward"), ("length", "rollout.max_tokens")]
    )
    def test_says_why_nothing_is_learnt(
        self, finish: Finish, reason: str, recipes: dict[str, Path], policy: Policy
    ) -> None:
        options = ["objective.min_reward=0.5", "rollout.mask_truncated=true"]
        recipe = load_recipe(recipes["raft"], options)
        learner = Raft(recipe, state_of(policy), policy)  # type: ignore[arg-type]
        poor = group(0.1, 0.2) if finish == "stop" else group(1.0, 2.0)
        cut = tuple(replace(c, finish=finish) for c in poor.rollout.completions)
        step = [replace(poor, rollout=replace(poor.rollout, completions=cut))]
        with pytest.warns(UserWarning, match=reason):
            assert learn(learner, learner.state, step)["skipped/groups"] == 1

    def test_equal_groups_are_learnt_and_dropout_is_live(self, recipes: dict[str, Path]) -> None:
        options = ["run.steps=2", "model.lora={rank: 2, dropout: 0.5}"]
        dropped = metrics(train(load_recipe(recipes["raft"], options)).parent)
        assert all(row["skipped/groups"] == 0 for row in dropped)
        assert all("frac_reward_zero_std" not in row for row in dropped)
        still = load_recipe(recipes["raft"], [*options, "model.lora.dropout=0"])
        rows = metrics(train(still, overwrite=True).parent)
        assert rows[0]["reward"] == dropped[0]["reward"]  # sampling is without dropout
        assert rows[0]["grad_norm"] != dropped[0]["grad_norm"]

    def test_raises_the_reward(self, recipes: dict[str, Path]) -> None:
        options = ["optim.learning_rate=3e-3", "run.steps=25", "run.batch_size=8",
                   "rollout={group_size: 8, max_tokens: 16}"]  # fmt: skip
        rows = metrics(train(load_recipe(recipes["raft"], options)).parent)
        first, last = (sum(r["reward"] for r in part) / 5 for part in (rows[:5], rows[-5:]))
        assert last > first + 1


def test_replay_holds_what_sft_taught(recipes: dict[str, Path]) -> None:
    """A policy gradient towards nothing but brevity, half of every step replayed demonstrations."""
    options = ["optim.learning_rate=3e-3", "run.steps=20", "objective.beta=0"]
    mixed = "data=[{path: tasks.jsonl, weight: 0.5}, {path: sft.jsonl, weight: 0.5}]"
    rows = metrics(
        train(load_recipe(recipes["grpo"], [*options, mixed, "run.batch_size=8"])).parent
    )
    assert rows[-1]["replay/loss"] < 0.7 * rows[0]["replay/loss"]
    assert rows[0]["completions/count"] == 4 * 4
