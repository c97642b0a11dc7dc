"""Sampling while training: no token too old, no prompt lost or learnt from twice."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strop.data.order import DataMixture, Part
from strop.engines.engine import Request
from strop.engines.publish import Publisher
from strop.errors import UnscoredError, UsageError
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.rollout import RolloutRecipe
from strop.recipe.train.source import AsynchronousRecipe
from strop.rollout import asynchronous
from strop.rollout.asynchronous import AsynchronousSource, IdleClock, ages_of
from strop.rollout.saved import group_of, group_plain
from strop.rollout.source import StepRollouts, SynchronousSource
from strop.rollout.tickets import Ticket, Tickets
from strop.types import Completion, Failure, Judged, Rollout, Score, ScoredGroup, VersionSpan
from tests.support.models import sharp_model
from tests.support.sampling import engine_of, prompted

BATCH, GROUP = 4, 2


class Paced:
    """An engine whose answers take what `pace` says. The first token is of the version at which an
    answer began, the second of that at which it ended."""

    def __init__(self, pace: Callable[[Request], float]) -> None:
        self.pace, self.version = pace, 0

    @property
    def current(self) -> int:
        """The weights were always updated since they were published."""
        return self.version + 1

    def publish(self) -> int:
        self.version += 1
        return self.version

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        for number, request in enumerate(requests):
            began = self.version
            time.sleep(self.pace(request))
            spans = (VersionSpan(0, 1, began), VersionSpan(1, 2, self.version))
            ids = (request.prompt.prompt_ids[0], request.key.index)
            yield number, Completion("x", "stop", ids=ids, sampled=(True, True),
                                     logprobs=(-1.0, -0.5), versions=spans)  # fmt: skip


def at_once(request: Request) -> float:
    return 0.0


class Slow:
    def __call__(self, request: Request) -> float:
        return 0.0005


class Bursty:
    """One answer in twenty takes twenty times as long as a step."""

    def __init__(self) -> None:
        self.draw = random.Random(4)

    def __call__(self, request: Request) -> float:
        return 0.02 if self.draw.random() < 0.05 else 0.0


class ByIndex:
    """Rewards differ within a group, unless the prompt is a multiple of `same`."""

    def __init__(self, same: int = 10**9) -> None:
        self.same = same

    def judge_rollouts(self, rollouts: Sequence[Rollout]) -> Judged:
        totals = [
            0.0 if rollout.prompt_ids[0] % self.same == 0 else float(c.ids[1])
            for rollout in rollouts
            for c in rollout.completions
        ]
        return Judged(tuple(Score(total, {"f": total}) for total in totals), ())


@pytest.fixture
def make(recipes: dict[str, Path]) -> Callable[..., AsynchronousSource]:
    def source(
        engine: Any,
        *,
        staleness: int = 2,
        order: str = "drawn",
        total: int = 500,
        reward: Any = None,
        more: Sequence[str] = (),
        records: int = 4000,
    ) -> AsynchronousSource:
        changes = [f"rollout={{group_size: {GROUP}, max_tokens: 2}}", *more]
        recipe: Any = load_recipe(recipes["grpo"], changes)
        named = AsynchronousRecipe(kind="async", max_staleness=staleness, order=order)  # type: ignore[arg-type]
        mixture = DataMixture([Part(False, 0, records, 1.0)], BATCH, 0)
        prompts = prompted([(n,) for n in range(1, records + 1)])
        return AsynchronousSource(
            recipe, named, prompts, mixture, engine, reward or ByIndex(), total=total,
            publisher=engine,
        )  # fmt: skip

    return source


def prompts_of(gathered: StepRollouts) -> list[int]:
    return [group.rollout.prompt_ids[0] for group in gathered.groups]


@pytest.mark.parametrize(
    ("source", "level"),
    [(None, "none"), ({"kind": "async", "max_staleness": 0}, "none"),
     ({"kind": "async", "max_staleness": 1}, "token"), ({"kind": "async"}, "token")],
)  # fmt: skip
def test_tokens_are_weighed_where_they_may_be_older(source: Any, level: str) -> None:
    """A source without staleness trains as the synchronous one does."""
    given = {} if source is None else {"source": source}
    assert RolloutRecipe.model_validate(given).mismatch.level == level


class TestStaleness:
    @pytest.mark.parametrize("pace", [Slow(), Bursty()], ids=["slow", "bursty"])
    @pytest.mark.parametrize("order", ["drawn", "ready"])
    @pytest.mark.parametrize("staleness", [0, 1, 3])
    def test_no_token_is_older_than_the_bound_when_it_is_learnt_from(
        self, make: Any, pace: Any, order: str, staleness: int
    ) -> None:
        steps = 500 if staleness == 1 else 100
        engine = Paced(pace)
        source = make(engine, staleness=staleness, order=order)
        oldest = 0
        for step in range(steps):
            gathered = source.next(step, step)
            ages = [a for group in gathered.groups for a in ages_of(group, engine.version)]
            assert max(ages) <= staleness
            assert len(gathered.groups) == BATCH
            oldest = max(oldest, *ages)
        # the bound is reached, so it is the bound that holds
        assert oldest == staleness or (order == "ready" and oldest > 0)

    def test_planted_a_group_that_is_passed_over_too_long_is_dropped_whole(self, make: Any) -> None:
        """The first prompt's second answer comes only after five steps."""
        released = threading.Event()
        first: list[int] = []

        class Held(Paced):
            def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
                for number, completion in super().generate(requests):
                    prompt = requests[number].prompt.prompt_ids[0]
                    first.append(prompt)
                    if prompt == first[0] and requests[number].key.index == 1:
                        # the rest of this wave waits with it
                        assert released.wait(20)
                    yield number, completion

        source = make(Held(at_once), staleness=1, order="ready")
        source._ask(1)  # a wave of the first prompt alone
        while not first:  # a busy machine may answer a later wave before it
            time.sleep(0.001)
        learnt = []
        for step in range(5):
            learnt += prompts_of(gathered := source.next(step, step))
            assert gathered.metrics["async/dropped"] == 0
        released.set()
        while 0 not in source._arrived.groups:
            time.sleep(0.001)
        for step in range(5, 8):
            learnt += prompts_of(gathered := source.next(step, step))
        # a busy machine may make others late as well
        assert gathered.metrics["async/dropped"] >= 1
        assert 0 not in source.tickets.outstanding
        assert first[0] not in learnt
        assert len(learnt) == 8 * BATCH == gathered.metrics["async/learnt"]


class TestAsTheSynchronousSource:
    def test_staleness_0_gives_the_same_bit_for_bit(
        self, recipes: dict[str, Path], tokenizer: Any
    ) -> None:
        """With fewer prompts than a step takes, so that one of them stands in a step twice."""
        model = sharp_model(tokenizer).eval()
        changes = ["rollout={group_size: 3, max_tokens: 6}"]
        recipe: Any = load_recipe(recipes["grpo"], changes)
        prompts = prompted([(9, 11, 12), (8,), (10, 13, 14)])
        mixture = DataMixture([Part(False, 0, 3, 1.0)], BATCH, 0)
        reward: Any = ByLength()
        ours, theirs = engine_of(model), engine_of(model)
        ahead = AsynchronousSource(
            recipe, AsynchronousRecipe(kind="async", max_staleness=0), prompts, mixture, ours,
            reward, total=4, publisher=Publisher(engine_of(model).policy(), ours, lambda: object()),
        )  # fmt: skip
        waits = SynchronousSource(
            recipe, prompts, mixture, theirs, reward, publish=lambda: theirs.publish({})
        )
        for step in range(4):
            found, wanted = ahead.next(step, step), waits.next(step, step)
            assert found.groups == wanted.groups
            with torch.no_grad():
                for weight in model.parameters():
                    weight *= 1.05

    def test_equal_groups_are_replaced(self, make: Any) -> None:
        source = make(Paced(at_once), reward=ByIndex(same=2), more=["rollout.resample=3"])
        for step in range(20):
            gathered = source.next(step, step)
            assert len(gathered.groups) == BATCH
            assert all(prompt % 2 for prompt in prompts_of(gathered))
            assert len(gathered.sampled) == gathered.rounds * BATCH
            assert gathered.metrics["async/staleness_max"] <= 2


class ByLength:
    def judge_rollouts(self, rollouts: Sequence[Rollout]) -> Judged:
        totals = [float(len(c.ids)) for rollout in rollouts for c in rollout.completions]
        return Judged(tuple(Score(total, {"f": total}) for total in totals), ())


class TestAccounts:
    @pytest.mark.parametrize("order", ["drawn", "ready"])
    def test_every_prompt_is_learnt_from_once_or_dropped_or_pending(
        self, make: Any, order: str
    ) -> None:
        source = make(Paced(Bursty()), order=order, staleness=1)
        learnt: Counter[int] = Counter()
        for step in range(200):
            gathered = source.next(step, step)
            learnt.update(prompts_of(gathered))
            said = gathered.metrics
            assert said["async/learnt"] == sum(learnt.values()) == (step + 1) * BATCH
            assert said["async/drawn"] == (
                said["async/learnt"] + said["async/dropped"] + said["async/pending"]
            )
        assert set(learnt.values()) == {1}

    def test_twenty_kills_change_neither_the_prompts_nor_their_order(self, make: Any) -> None:
        whole = make(Paced(at_once), total=60)
        expected = [prompts_of(whole.next(step, step)) for step in range(60)]
        draw = random.Random(7)
        learnt: list[list[int]] = []
        saved: Any = None
        step = kept = kills = 0
        source = make(Paced(Bursty()), total=60)
        while step < 60:
            learnt.append(prompts_of(source.next(step, step)))
            step += 1
            if draw.random() < 0.5:
                saved, kept = json.loads(json.dumps(source.state())), step
            if kills < 20 and saved is not None and draw.random() < 0.5:
                kills += 1
                source.close()
                source = make(Paced(Bursty()), total=60)
                source.load(saved)
                step = kept
                del learnt[kept:]
        assert kills == 20
        assert learnt == expected
        assert source.tickets.dropped == 0
        assert source.tickets.drawn == 60 * BATCH
        assert not source.tickets.outstanding

    def test_what_was_finished_is_not_sampled_again_after_a_kill(self, make: Any) -> None:
        source = make(Paced(at_once), staleness=1)
        source.next(0, 0)
        while len(source._arrived.groups) < BATCH:
            time.sleep(0.001)
        saved = json.loads(json.dumps(source.state()))
        asked: list[Request] = []

        def noted(request: Request) -> float:
            asked.append(request)
            return 0.0

        engine = Paced(noted)
        other = make(engine, staleness=1)
        other.load(saved)
        found = other.next(1, 1)
        assert [group.scores for group in found.groups] == [
            group.scores for _, group in sorted(source._arrived.groups.items())
        ]
        assert max(ages_of(found.groups[0], engine.version)) == 1
        while len(asked) < BATCH * GROUP:  # those of step 2, drawn in `next`
            time.sleep(0.001)
        assert {request.key.step for request in asked} == {2}

    def test_a_checkpoint_of_a_synchronous_run_is_refused(self, make: Any) -> None:
        with pytest.raises(UsageError, match="does not say which prompts were drawn"):
            make(Paced(at_once)).load({})

    def test_planted_a_checkpoint_that_lost_a_prompt(self, make: Any) -> None:
        source = make(Paced(at_once))
        source.next(0, 0)
        saved = source.state()
        saved["tickets"]["outstanding"].pop()
        with pytest.raises(UsageError, match="do not add up: 12 prompts drawn, 4 learnt"):
            make(Paced(at_once)).load(saved)

    def test_a_run_that_went_back_reads_on(self, make: Any) -> None:
        """Two steps' records are left out: what is drawn from then on stands two positions on."""
        source = make(Paced(at_once), staleness=1)
        saved = source.state()
        source.next(0, 0)
        source.load(saved)
        gathered = source.next(0, position=2)
        assert prompts_of(gathered) == [1 + i for i in source.mixture.draw(2).own]
        assert [t.position for t in source.tickets.outstanding.values()] == [3] * BATCH

    def test_a_run_that_left_records_out_learns_from_none_of_them(self, make: Any) -> None:
        """It went back with prompts outstanding: theirs are those after the records left out."""
        source = make(Paced(at_once), staleness=2)
        seen = prompts_of(source.next(0, 0))
        saved = json.loads(json.dumps(source.state()))
        blown_up = [prompts_of(source.next(step, step)) for step in (1, 2)]
        source.load(saved)
        later = [prompts_of(source.next(step, position=step + 2)) for step in (1, 2)]
        assert later == [[1 + i for i in source.mixture.draw(n).own] for n in (3, 4)]
        assert not {*seen, *blown_up[0], *blown_up[1]} & {*later[0], *later[1]}
        assert source.tickets.dropped == 0

    def test_a_signal_at_the_end_of_a_step_loses_no_prompt(
        self, make: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = make(Paced(at_once))
        expected = prompts_of(make(Paced(at_once)).next(0, 0))

        def interrupted(group: ScoredGroup, version: int) -> list[int]:
            raise KeyboardInterrupt

        with monkeypatch.context() as planted:
            planted.setattr(asynchronous, "ages_of", interrupted)
            planted.setattr(AsynchronousSource, "_age", lambda self, group: 0)
            with pytest.raises(KeyboardInterrupt):
                source.next(0, 0)
        other = make(Paced(at_once))
        other.load(json.loads(json.dumps(source.state())))
        assert prompts_of(other.next(0, 0)) == expected

    def test_a_version_published_before_the_save_makes_no_group_older(self, make: Any) -> None:
        """A held-out evaluation gave the engine the weights that the checkpoint has."""

        class Evaluated(Paced):
            current = property(lambda self: self.version)  # type: ignore[assignment]

        source = make(Evaluated(at_once), staleness=1)
        source.next(0, 0)
        while len(source._arrived.groups) < BATCH:
            time.sleep(0.001)
        source.held_out(prompted([(5,)]), ByIndex(), samples=2, temperature=0.0)
        saved = json.loads(json.dumps(source.state()))
        other = make(Paced(at_once), staleness=1)
        other.load(saved)
        assert other.next(1, 1).metrics["async/dropped"] == 0


class TestFaults:
    def test_a_reward_that_ends_the_program_ends_the_step(self, make: Any) -> None:
        class Leaves:
            def judge_rollouts(self, rollouts: Sequence[Rollout]) -> Judged:
                raise SystemExit(3)

        with pytest.raises(SystemExit):
            make(Paced(at_once), reward=Leaves()).next(0, 0)

    def test_a_closed_source_asks_for_nothing_more(self, make: Any) -> None:
        begun, go_on = threading.Event(), threading.Event()
        asked: list[int] = []

        def held(request: Request) -> float:
            asked.append(request.key.index)
            begun.set()
            assert go_on.wait(20)
            return 0.0

        source = make(Paced(held))
        source._ask(BATCH)
        assert begun.wait(20)
        source.close()
        go_on.set()
        while source._idle.busy:
            time.sleep(0.001)
        assert len(asked) == 1

    def test_what_a_thread_raises_ends_the_step(self, make: Any) -> None:
        def broken(request: Request) -> float:
            raise UsageError("the server fell over")

        with pytest.raises(UsageError, match="fell over"):
            make(Paced(broken)).next(0, 0)

    def test_nothing_scored(self, make: Any) -> None:
        class Dead:
            def judge_rollouts(self, rollouts: Sequence[Rollout]) -> Judged:
                failure = Failure("f", "KeyError: 'answer'", "raised", GROUP)
                return Judged((Score(None, {"f": None}),) * GROUP, (failure,))

        with (
            pytest.warns(UserWarning, match="left 2 completions unscored"),
            pytest.raises(UnscoredError, match="KeyError"),
        ):
            make(Paced(at_once), reward=Dead()).next(0, 0)

    def test_a_failed_reward_is_charged_to_the_step_that_learns_from_its_group(
        self, make: Any
    ) -> None:
        """All that is drawn is scored before the first step ends; prompt n fails as `f<n>`."""

        class Failing(ByIndex):
            def judge_rollouts(self, rollouts: Sequence[Rollout]) -> Judged:
                judged = super().judge_rollouts(rollouts)
                failure = Failure(f"f{rollouts[0].prompt_ids[0]}", "KeyError", "raised", 1)
                return Judged(judged.scores, (failure,))

        source = make(Paced(at_once), reward=Failing(), staleness=2)
        for step in range(3):
            with pytest.warns(UserWarning, match="left 1 completions unscored"):
                gathered = source.next(step, step)
            if step == 0:
                while len(source._arrived.groups) < 2 * BATCH:
                    time.sleep(0.001)
            assert [one.component for one in gathered.failures] == [
                f"f{prompt}" for prompt in prompts_of(gathered)
            ]
        source.close()

    def test_a_trainer_that_waits_says_how_long(self, make: Any) -> None:
        """Two answers of 5 ms each are the least that the first group takes."""
        source = make(Paced(lambda request: 0.005), staleness=1)
        assert source.next(0, 0).metrics["async/trainer_idle"] >= 0.01


def test_the_generator_is_idle_while_nothing_is_asked() -> None:
    now = [10.0]
    idle = IdleClock(clock=lambda: now[0])

    def at(time: float) -> IdleClock:
        now[0] = time
        return idle

    at(11.0).began()
    at(12.0).began()
    at(15.0).ended()
    at(16.0).ended()
    assert at(16.5).taken() == 1.5  # before the first was asked, and since the last came
    at(18.5).began()
    assert at(20.0).taken() == 2.0
    assert at(30.0).taken() == 0.0


SPANS = st.lists(st.integers(0, 5), min_size=1, max_size=4)
TOTALS = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@given(ages=SPANS, logprob=st.floats(-50, 0), total=TOTALS)
def test_a_saved_group_is_the_group(ages: list[int], logprob: float, total: float | None) -> None:
    spans = tuple(VersionSpan(n, n + 1, 9 - age) for n, age in enumerate(ages))
    completion = Completion(
        "x = 3", "length", opened="<think>", ids=tuple(range(len(ages) + 1)),
        sampled=(*(True for _ in ages), False), logprobs=(logprob,) * len(ages), versions=spans,
    )  # fmt: skip
    (prompt,) = prompted([(4, 5)])
    group = ScoredGroup(
        Rollout(prompt.task, prompt.prompt_ids, (completion,)), (Score(total, {"f": total}),)
    )
    saved = json.loads(json.dumps(group_plain(group, 9)))
    assert group_of(saved, prompt, 9) == group
    assert ages_of(group_of(saved, prompt, 3), 3) == ages_of(group, 9)


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), max_size=30), st.integers(0, 3))
def test_tickets_add_up(draws: list[int], shift: int) -> None:
    tickets = Tickets(batch=3, total=5)
    seen: list[Ticket] = []
    for up_to in draws:
        seen += tickets.draw(up_to, shift)
        if tickets.outstanding and up_to % 2:
            tickets.drop(tickets.outstanding[max(tickets.outstanding)])
        elif tickets.outstanding:
            tickets.learn([tickets.outstanding[min(tickets.outstanding)]])
        assert tickets.drawn == tickets.learnt + tickets.dropped + len(tickets.outstanding)
    assert [t.number for t in seen] == list(range(len(seen)))
    assert all(t.position == (t.number // 3 + shift) % 5 and t.place == t.number % 3 for t in seen)
