"""Episodes are played at the same time, and each of them is what it would be alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from strop.advantages import GROUPED
from strop.engines.engine import Request
from strop.engines.local.engine import LocalEngine
from strop.episodes import Episode, Turn
from strop.errors import WorldError
from strop.rollout.credit import turn_advantages
from strop.rollout.environment import FaultError, Observation, Said
from strop.rollout.episode_metrics import episode_metrics
from strop.rollout.group import rollout_of
from strop.types import Origin, Rollout, Score, ScoredGroup, Task, VersionSpan
from tests.support.episodes import (
    ScriptedEngine,
    ScriptedEnvironment,
    ScriptedFactory,
    asked,
    played,
)
from tests.support.templates import PLAIN, speaking

PROMPTS = [[{"role": "user", "content": f"Solve {n}x = 6"}] for n in (1, 2, 3)]
MORE = ({"role": "user", "content": "Again?"},)


@pytest.fixture(scope="module")
def told(tokenizer: Any) -> Any:
    changed = speaking(tokenizer, PLAIN)
    changed.init_kwargs["end_of_turn"] = ["<|im_end|>"]
    return changed


def up_to(turns: int) -> ScriptedFactory:
    """Environments that go on for so many turns and give 1 at their end."""

    def answer(said: Said, number: int) -> Observation:
        return Observation(done=True) if number == turns else Observation(MORE)

    return ScriptedFactory(lambda number: ScriptedEnvironment(answer, final=1.0))


def echo(prompt: str, request: Request) -> str:
    return f"x = {len(prompt)} {request.key.index}"


def test_every_request_gets_its_own_episode(told: Any) -> None:
    requests = asked(told, PROMPTS, size=2)
    engine = ScriptedEngine(told, echo)
    factory = up_to(3)
    episodes = played(engine, factory, requests)
    assert len(engine.asked) == 18
    assert all(environment.closed for environment in factory.made)
    for number, episode in enumerate(episodes):
        assert len(episode.turns) == 3
        assert episode.messages[0]["content"].endswith(f" {number % 2}")
        assert episode.finish == "stop"


def test_draw_keys_name_what_the_policy_read(told: Any) -> None:
    """So that a turn's draw depends on nothing but its conversation; a first turn has the key of an
    answer without an environment."""
    requests = asked(told, PROMPTS[:1], size=2)
    engine = ScriptedEngine(told, echo)
    played(engine, up_to(2), requests)
    keys = [request.key for request in engine.asked]
    assert len(set(keys)) == 4
    assert [r.key for r in requests] == [k for k in keys if k.prompt == requests[0].key.prompt]
    for request in engine.asked:
        assert request.key.prompt == ",".join(map(str, request.prompt.prompt_ids))


@pytest.mark.parametrize("turns", ["together", "as_they_come"])
def test_episodes_with_the_embedded_engine_are_those_played_alone(
    told: Any, policy: Any, turns: str
) -> None:
    policy.model.resize_token_embeddings(len(told))
    engine = LocalEngine("model", policy)
    engine.tokenizer = told  # type: ignore[method-assign, assignment]
    requests = asked(told, PROMPTS, size=3, max_tokens=8)
    together = played(engine, up_to(3), requests, turns=turns)
    for request, episode in zip(requests, together, strict=True):
        (alone,) = played(engine, up_to(3), [request], turns=turns)
        assert alone.ids == episode.ids
        assert alone.sampled == episode.sampled
        assert alone.logprobs == pytest.approx(episode.logprobs, abs=2e-5)


def test_together_everybody_is_asked_at_once(told: Any) -> None:
    class Counting(ScriptedEngine):
        rounds: list[int]

        def answering(self, feed: Any) -> Any:
            self.rounds = []
            while coming := feed.take(wait=True):
                self.rounds.append(len(coming))
                for number, request in coming:
                    yield number, self.answer(request)

    def lasting(number: int) -> ScriptedEnvironment:
        last = number + 1

        def answer(said: Said, turn: int) -> Observation:
            return Observation(done=True) if turn == last else Observation(MORE)

        return ScriptedEnvironment(answer, seconds=lambda turn: 0.002 * number)

    engine = Counting(told, echo)
    played(engine, ScriptedFactory(lasting), asked(told, PROMPTS, size=2), turns="together")
    assert engine.rounds == [6, 5, 4, 3, 2, 1]
    played(
        engine, ScriptedFactory(lasting), asked(told, PROMPTS, size=2), turns="together", at_once=2
    )
    assert max(engine.rounds) == 2
    assert sum(engine.rounds) == 21


def test_a_hanging_environment_holds_up_nobody_else(told: Any) -> None:
    """The first one would sleep for an hour: all others end first, and it is called off."""
    order: list[int] = []

    def one(number: int) -> ScriptedEnvironment:
        def answer(said: Said, turn: int) -> Observation:
            order.append(number)
            return Observation(done=True, reward=1.0)

        return ScriptedEnvironment(answer, seconds=lambda turn: 3600.0 if number == 0 else 0.0)

    episodes = played(
        ScriptedEngine(told, echo), ScriptedFactory(one), asked(told, PROMPTS), episode_seconds=0.5
    )
    assert order == [1, 2]
    assert [episode.finish for episode in episodes] == ["aborted", "stop", "stop"]
    assert [episode.reward for episode in episodes] == [None, 1.0, 1.0]


def test_a_fault_costs_its_episode_only_and_what_was_said_is_kept(told: Any) -> None:
    def one(number: int) -> ScriptedEnvironment:
        def answer(said: Said, turn: int) -> Observation:
            if number == 1 and turn == 2:
                raise FaultError("the database is gone")
            return Observation(done=True) if turn == 2 else Observation(MORE)

        return ScriptedEnvironment(answer)

    factory = ScriptedFactory(one)
    episodes = played(ScriptedEngine(told, echo), factory, asked(told, PROMPTS))
    assert [episode.finish for episode in episodes] == ["stop", "error", "stop"]
    assert len(episodes[1].turns) == 2
    assert factory.made[1].closed


def test_limits_of_turns_and_tokens_end_an_episode_as_cut(told: Any) -> None:
    (episode,) = played(ScriptedEngine(told, echo), up_to(5), asked(told, PROMPTS[:1]), max_turns=2)
    assert (episode.finish, len(episode.turns)) == ("length", 2)
    assert episode.reward == 1.0, "the environment still says how good it was"
    (cut,) = played(
        ScriptedEngine(told, echo), up_to(5), asked(told, PROMPTS[:1]), max_episode_tokens=12
    )
    assert cut.finish == "length"
    assert len(cut.ids) <= 12


def test_words_after_done_and_rewards_out_of_bounds_end_the_run(told: Any) -> None:
    talks = ScriptedFactory(
        lambda n: ScriptedEnvironment(lambda said, turn: Observation(MORE, done=True))
    )
    with pytest.raises(WorldError, match="together with done"):
        played(ScriptedEngine(told, echo), talks, asked(told, PROMPTS))
    rich = ScriptedFactory(
        lambda n: ScriptedEnvironment(lambda said, turn: Observation(done=True, reward=2.0)),
        bounds=(0.0, 1.0),
    )
    with pytest.raises(WorldError, match="a reward of 2, and declares 0 to 1"):
        played(ScriptedEngine(told, echo), rich, asked(told, PROMPTS))


def test_an_error_of_the_engine_is_raised_and_all_environments_are_closed(told: Any) -> None:
    def broken(prompt: str, request: Request) -> str:
        if "Again" in prompt:
            raise RuntimeError("no more tokens")
        return "x"

    factory = up_to(2)
    with pytest.raises(RuntimeError, match="no more tokens"):
        played(ScriptedEngine(told, broken), factory, asked(told, PROMPTS))
    assert all(environment.closed for environment in factory.made)


def episode(*turns: tuple[int, float | None], shared: int = 2) -> Episode:
    ids = tuple(range(10, 10 + sum(tokens for tokens, _ in turns)))
    return Episode(
        "x", "stop", ids=ids, sampled=(True,) * len(ids), logprobs=(-0.5,) * len(ids),
        versions=(VersionSpan(0, len(ids), 1),), shared=shared,
        turns=tuple(Turn(*turn) for turn in turns),
    )  # fmt: skip


def group_of(*members: tuple[Episode, float | None]) -> ScoredGroup:
    task = Task("a task", {}, Origin("tasks.jsonl", 1))
    return ScoredGroup(
        Rollout(task, (1, 4), tuple(e for e, _ in members)),
        tuple(Score(total, {}) for _, total in members),
    )


def test_a_turn_is_credited_with_what_came_after_it() -> None:
    """Two episodes of two turns: weights of 2, rewards 0.5 then 0 against 0 then 0.5, and an end
    that gives the first 1. Totals 2 (0.5) + 1 = 2 and 2 (0.5) = 1."""
    group = group_of(
        (episode((2, 0.5), (1, 0.0)), 2.0),
        (episode((1, 0.0), (2, 0.5)), 1.0),
        (episode((1, None)), None),
    )
    plain = turn_advantages(group, 2.0, GROUPED["group_mean"])
    # first turns: 2 and 1, mean 1.5; second turns: 2 - 2 (0.5) = 1 and 1 - 0 = 1, mean 1
    assert plain[0].tolist() == [0.5, 0.5, 0.0]
    assert plain[1].tolist() == [-0.5, 0.0, 0.0]
    assert plain[2].tolist() == [0.0]


def test_a_group_begins_with_what_all_its_episodes_share(told: Any) -> None:
    requests = asked(told, PROMPTS[:1])
    ids = requests[0].prompt.prompt_ids
    rollout = rollout_of(
        requests[0].prompt, [episode((2, None), shared=len(ids)), episode((1, None), shared=3)]
    )
    assert rollout.prompt_ids == ids[:3]
    first, second = rollout.completions
    assert first.branches()[0].ids == (*ids[3:], 10, 11)
    assert second.branches()[0].ids == (10,)


def test_metrics_are_means_over_episodes(told: Any) -> None:
    def counted(finish: str, reward: float | None, **facts: float) -> Episode:
        return replace(episode((1, None)), finish=finish, reward=reward, facts=facts)

    group = group_of(
        (counted("stop", 1.0, turns=2.0, tool_errors=1.0), 1.0),
        (counted("error", None, turns=1.0), None),
    )
    assert episode_metrics([group]) == {
        "episode/turns": 1.5, "episode/tool_errors": 0.5, "episode/failed": 0.5,
        "episode/reward": 1.0,
    }  # fmt: skip


def test_a_reward_that_float32_cannot_hold_is_the_environments_fault(told: Any) -> None:
    """It would make every statistic of its group infinite or NaN."""
    huge = ScriptedFactory(
        lambda n: ScriptedEnvironment(
            lambda said, turn: Observation(done=True), final=(1e300, float("nan"), 1.0)[n]
        )
    )
    with pytest.warns(UserWarning, match="no number that training can hold"):
        episodes = played(ScriptedEngine(told, echo), huge, asked(told, PROMPTS))
    assert sorted(episode.finish for episode in episodes) == ["error", "error", "stop"]
