"""Samples further steps' rollouts while the trainer updates, none of them too old to learn from."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from strop.data.order import DataMixture
from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Request, RolloutEngine, requests_of
from strop.engines.publish import Publisher
from strop.episodes import Episode
from strop.errors import UsageError
from strop.recipe.train.methods import Online
from strop.recipe.train.source import AsynchronousRecipe
from strop.rewards.compose import Reward
from strop.rollout.collect import Collected, expect_some_scored
from strop.rollout.environment import Results
from strop.rollout.group import rollout_of
from strop.rollout.saved import group_of, group_plain
from strop.rollout.source import (
    StepRollouts,
    answers_to,
    filled,
    shaped,
    teaches,
    training_sampling,
    warn_of,
)
from strop.rollout.tickets import Ticket, Tickets
from strop.tracking.phases import phase
from strop.types import Completion, Failure, Judged, Rollout, ScoredGroup, trainable

FEW = "resume with the recipe that the run was started with, or pass --overwrite to start again"


@dataclass(slots=True)
class Arrived:
    """What came back and is not learnt from: scored groups, and which rewards failed for them, by
    ticket number. Once it is `over` nothing more is asked for."""

    groups: dict[int, ScoredGroup] = field(default_factory=dict)
    failures: dict[int, tuple[Failure, ...]] = field(default_factory=dict)
    error: BaseException | None = None
    over: threading.Event = field(default_factory=threading.Event)


class IdleClock:
    """Seconds in which nothing was asked of the engine."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock, self.busy, self.since, self.seconds = clock, 0, clock(), 0.0

    def began(self) -> None:
        if self.busy == 0:
            self.seconds += self.clock() - self.since
        self.busy += 1

    def ended(self) -> None:
        self.busy -= 1
        if self.busy == 0:
            self.since = self.clock()

    def taken(self) -> float:
        """The seconds since this was last called."""
        now = self.clock()
        seconds, self.seconds = self.seconds, 0.0
        if self.busy == 0:
            seconds, self.since = seconds + now - self.since, now
        return seconds


class AsynchronousSource:
    """The engine samples in other threads, up to `max_staleness` steps ahead of the trainer.

    **No token that is learnt from is older than `max_staleness` versions.** Let a step take B
    groups, and let s be `max_staleness`. Prompts are drawn inside `next` only, after the newest
    version was published, and only until (s + 1) B are outstanding, those of this step among them.
    So whoever is drawn at step v samples with version v or newer, and at most (s + 1) B - 1
    prompts are to be learnt from before it. In the order of the prompts every step takes B or more
    of them: it is learnt at step v + s at the latest, and a step makes one version at most. Where
    steps take what is ready, a group may be passed over: its age is looked at when it is taken, and
    a group with a token that is too old is dropped whole, and another prompt drawn for it.

    A reward is asked for one group at a time, by the thread that sampled it.
    """

    def __init__(
        self,
        recipe: Online,
        asynchronous: AsynchronousRecipe,
        prompts: Sequence[PromptedTask],
        mixture: DataMixture,
        engine: RolloutEngine,
        reward: Reward,
        *,
        total: int,
        publisher: Publisher,
        results: Results | None = None,
    ) -> None:
        self.recipe, self.prompts, self.mixture = recipe, prompts, mixture
        self.ahead, self.in_order = asynchronous.max_staleness, asynchronous.order == "drawn"
        self.engine, self.reward, self.publisher = engine, reward, publisher
        self.results = results
        self.tickets = Tickets(mixture.own, total)
        self.version = 0
        self._shift = 0
        self._arrived = Arrived()
        self._changed = threading.Condition()
        self._rewarding = threading.Lock()
        self._idle = IdleClock()
        self._waited = 0.0
        self._asked_again: list[Ticket] = []
        self._loaded: Mapping[str, Any] = {}

    def tasks(self, position: int) -> list[PromptedTask]:
        return [self.prompts[i] for i in self.mixture.draw(position).own]

    def next(self, step: int, position: int) -> StepRollouts:
        """The groups of a step, and what was drawn for further ones."""
        self._shift = (position - step) % self.tickets.total
        self.version = self.publisher.publish()
        self._come_back()
        batch = self.tickets.batch
        most = batch * (self.recipe.rollout.resample + 1)
        ahead = min(self.ahead, self.tickets.total - step - 1)  # nothing is learnt after the end
        self._ask((ahead + 1) * batch)
        taken: list[Ticket] = []
        useful: list[ScoredGroup] = []
        equal: list[ScoredGroup] = []
        with phase("sampling"):
            while len(useful) < batch and len(taken) < most:
                ticket, group = self._await(taken)
                if self._age(group) > self.ahead:
                    self._drop(ticket)
                else:
                    taken.append(ticket)
                    keeps = self.recipe.rollout.resample == 0 or teaches(self.recipe, group)
                    (useful if keeps else equal).append(group)
                left = min(batch - len(useful), most - len(taken))
                self._ask(ahead * batch + len(taken) + left)
        return self._settled(taken, useful, equal, step)

    def held_out(
        self, tasks: Sequence[PromptedTask], reward: Reward, *, samples: int, temperature: float
    ) -> Collected:
        self.publisher.publish()

        def judged(rollouts: Sequence[Rollout]) -> Judged:
            with self._rewarding:
                return reward.judge_rollouts(rollouts)

        return answers_to(
            self.recipe, tasks, self.engine, judged, samples=samples, temperature=temperature
        )

    def state(self) -> dict[str, Any]:
        """The tickets, and the groups that are finished and not learnt from; what is being sampled
        is sampled again, with the same draws. So are groups with routes, which are large, and
        episodes."""
        with self._changed:
            groups = {
                str(number): group_plain(group, self.publisher.current)
                for number, group in self._arrived.groups.items()
                if all(_is_kept(c) for c in group.rollout.completions)
            }
            league = {} if self.results is None else {"league": self.results.state()}
            return {"tickets": self.tickets.state(), "groups": groups, **league}

    def load(self, state: Mapping[str, Any]) -> None:
        if not state.keys() >= {"tickets", "groups"}:
            raise UsageError(
                "the checkpoint does not say which prompts were drawn, because its run sampled "
                "synchronously: an asynchronous one would begin with the first prompt again",
                fix=FEW,
            )
        if ("league" in state) != (self.results is not None):
            raise UsageError(
                "the checkpoint does not say how games went, or it says so and there is no league",
                fix="resume with the recipe that the run was started with",
            )
        if self.results is not None:
            self.results.load(state["league"])
        self.close()
        with self._changed:
            self.tickets.load(state["tickets"])
            self._loaded = dict(state["groups"])
            self._asked_again = [
                t for n, t in self.tickets.outstanding.items() if str(n) not in self._loaded
            ]

    def close(self) -> None:
        """What is still being sampled is not waited for."""
        self._arrived.over.set()
        self._arrived = Arrived()

    def _come_back(self) -> None:
        """After a checkpoint was loaded: its finished groups, and what was being sampled once more.
        Where the run left records out, all that is outstanding is asked for anew."""
        moved = self.tickets.moved(self._shift)
        if moved:
            self.close()
            self._loaded, self._asked_again = {}, list(self.tickets.outstanding.values())
        for number, saved in self._loaded.items():
            ticket = self.tickets.outstanding[int(number)]
            group = group_of(saved, self._prompt(ticket), self.version)
            self._arrived.groups[ticket.number] = group
        again, self._loaded, self._asked_again = self._asked_again, {}, []
        self._start(again)

    def _ask(self, up_to: int) -> None:
        self._start(self.tickets.draw(up_to, self._shift))

    def _start(self, tickets: list[Ticket]) -> None:
        if not tickets:
            return
        with self._changed:
            self._idle.began()
        asking = threading.Thread(target=self._sample, args=(tickets, self._arrived), daemon=True)
        asking.start()

    def _sample(self, tickets: list[Ticket], arrived: Arrived) -> None:
        """Ask for these prompts' groups; every group goes to `arrived` once it is whole."""
        size = self.recipe.rollout.group_size
        answers: dict[int, dict[int, Completion]] = {n: {} for n in range(len(tickets))}
        try:
            for index, answer in self.engine.generate(self._requests(tickets)):
                if arrived.over.is_set():
                    break
                which, member = divmod(index, size)
                answers[which][member] = trainable(answer)
                if len(answers[which]) == size:
                    whole = tuple(answers[which][n] for n in range(size))
                    self._score(tickets[which], whole, arrived)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the trainer has to be told
            with self._changed:
                arrived.error = error
                self._changed.notify_all()
        finally:
            with self._changed:
                self._idle.ended()

    def _score(self, ticket: Ticket, completions: tuple[Completion, ...], arrived: Arrived) -> None:
        rollout = rollout_of(self._prompt(ticket), completions)
        with self._rewarding:
            judged = self.reward.judge_rollouts([rollout])
        group = shaped(self.recipe, ScoredGroup(rollout, judged.scores))
        with self._changed:
            arrived.groups[ticket.number] = group
            arrived.failures[ticket.number] = judged.failures
            self._changed.notify_all()

    def _requests(self, tickets: list[Ticket]) -> list[Request]:
        """The requests that the synchronous source makes for these prompts, keys included."""
        size, sampling = self.recipe.rollout.group_size, training_sampling(self.recipe)
        whole: dict[int, list[Request]] = {}
        found = []
        for ticket in tickets:
            step = ticket.number // self.tickets.batch
            if step not in whole:
                key = DrawKey(self.recipe.seed, "training", step)
                whole[step] = requests_of(self.tasks(ticket.position), sampling, key, size)
            found += whole[step][ticket.place * size : (ticket.place + 1) * size]
        return found

    def _prompt(self, ticket: Ticket) -> PromptedTask:
        return self.prompts[self.mixture.draw(ticket.position).own[ticket.place]]

    def _await(self, taken: list[Ticket]) -> tuple[Ticket, ScoredGroup]:
        """The next group of the step; waits for it."""
        began = time.perf_counter()
        with self._changed:
            groups = self._arrived.groups
            while True:
                if self._arrived.error is not None:
                    raise self._arrived.error
                if self.in_order:
                    ticket = self.tickets.next_of(taken, lambda one: True)
                else:
                    ticket = self.tickets.next_of(taken, lambda one: one.number in groups)
                if ticket is not None and ticket.number in groups:
                    self._waited += time.perf_counter() - began
                    return ticket, groups[ticket.number]
                self._changed.wait()

    def _age(self, group: ScoredGroup) -> int:
        """Of its oldest token, in versions."""
        return max(ages_of(group, self.version), default=0)

    def _drop(self, ticket: Ticket) -> None:
        with self._changed:
            self.tickets.drop(ticket)
            del self._arrived.groups[ticket.number]
            self._arrived.failures.pop(ticket.number, None)

    def _settled(
        self,
        taken: list[Ticket],
        useful: list[ScoredGroup],
        equal: list[ScoredGroup],
        step: int,
    ) -> StepRollouts:
        """What was taken is learnt from now, and no longer outstanding: that is said last, because
        a signal may come before."""
        failed = self._arrived.failures
        failures = tuple(one for ticket in taken for one in failed.get(ticket.number, ()))
        sampled = (*useful, *equal)
        warn_of(failures)
        expect_some_scored(sampled, failures)
        learnt = tuple(useful)
        if self.results is not None:
            self.results.note(sampled)
        if self.recipe.rollout.resample:
            batch = self.tickets.batch
            learnt = filled(useful, equal, batch, seed=self.recipe.seed, step=step)
        rounds = len(taken) / self.tickets.batch
        ages = [age for group in learnt for age in ages_of(group, self.version)]
        with self._changed:
            self.tickets.learn(taken)
            for ticket in taken:
                del self._arrived.groups[ticket.number]
                failed.pop(ticket.number, None)
        return StepRollouts(learnt, sampled, rounds, failures, self._metrics(ages))

    def _metrics(self, ages: Sequence[int]) -> dict[str, float]:
        waited, self._waited = self._waited, 0.0
        settled = self.tickets.learnt + self.tickets.dropped
        known = {} if self.results is None else self.results.metrics()
        return known | {
            "async/staleness": sum(ages) / max(1, len(ages)),
            "async/staleness_max": max(ages, default=0),
            "async/drawn": self.tickets.drawn,
            "async/learnt": self.tickets.learnt,
            "async/dropped": self.tickets.dropped,
            "async/dropped_share": self.tickets.dropped / max(1, settled),
            "async/pending": len(self.tickets.outstanding),
            "async/trainer_idle": waited,
            "async/generator_idle": self._idle.taken(),
        }


def _is_kept(completion: Completion) -> bool:
    return completion.routes is None and not isinstance(completion, Episode)


def ages_of(group: ScoredGroup, version: int) -> list[int]:
    """How many versions older than `version` each sampled token of a group is."""
    return [
        version - span.version
        for completion in group.rollout.completions
        for span in completion.versions
        for _ in range(span.start, span.stop)
    ]
