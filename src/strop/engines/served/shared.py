"""The servers of a run, as each of its processes asks them for its share of the answers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from strop.distributed.world import World
from strop.engines.canary import Canary
from strop.engines.endings import stop_ids
from strop.engines.engine import Request
from strop.engines.feed import Feed
from strop.engines.served.engine import ServedEngine, completion_of, taken
from strop.engines.served.fleet import Asked, Fleet, Member
from strop.engines.served.server import Labels, Server, versions_of
from strop.errors import HttpError, TrainingError
from strop.model.logprobs import bare
from strop.model.network import Policy
from strop.model.save import gathered_weights
from strop.types import Completion


@dataclass(frozen=True, slots=True)
class Told:
    """What process 0 tells the others of its servers: `Told(7, "a1b2-7", {"http://127.0.0.1:8000":
    {"a1b2-7": 7}})`: the newest version, the adapter to ask for it, and what the servers that
    answer call it, by their address."""

    version: int
    adapter: str | None
    labels: Mapping[str, Labels]


@dataclass(frozen=True, slots=True)
class Missed:
    """Requests of a process that it got no answer to, and why."""

    requests: Sequence[Request]
    problem: str = ""


class SharedEngine:
    """Process 0 gives the servers their weights and looks after them; every process asks for its
    share.

    `publish`, `generate` and `answering` are called by all processes in the same order; all wait
    until the canary has seen the weights on every server. What another process gets no answer to in
    `generate` is asked for once more by process 0, which finds servers again and gives them their
    weights: the same request has the same draw.

    Args:
        leader: the servers on process 0, `None` on the others.
        canary: of the policy; where that is sharded, its forwards need every process.
        at_once: requests of this process that are on their way together.
    """

    def __init__(
        self,
        world: World,
        policy: Policy,
        servers: Sequence[Server],
        canary: Canary,
        *,
        leader: ServedEngine | None,
        at_once: int,
    ) -> None:
        self.world, self.leader = world, leader
        self._policy, self._canary = policy, canary
        self._fleet = Fleet([Member(one) for one in servers], at_once, _left_to_the_first)
        self._stops = sorted(stop_ids(bare(policy.model), policy.tokenizer))
        self._told = Told(0, None, {})

    def identity(self) -> Mapping[str, Any]:
        return self.world.first(lambda: self._first.identity())

    def publish(self, weights: Mapping[str, torch.Tensor]) -> int:
        if self.leader is not None:
            self.leader.publish(weights)
        elif self._policy.is_sharded:
            self._take_part()
        self._hear(self.world.first(self._tell))
        return self._told.version

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """This process's requests; the answers are there once all processes have theirs."""
        self.world.first(lambda: self._first.wake())
        if self.leader is not None:
            found, problem = dict(self.leader.generate(requests)), ""
        else:
            found, problem = self._asked(requests)
        left = [number for number in range(len(requests)) if number not in found]
        every = self.world.exchanged(Missed([requests[number] for number in left], problem))
        if any(one.requests for one in every):
            answers, told = self.world.first(lambda: (self._asked_again(every), self._tell()))
            found |= zip(left, answers[self.world.rank], strict=True)
            self._hear(told)
        yield from found.items()

    def answering(self, feed: Feed) -> Iterator[tuple[int, Completion]]:
        """Answers to this process's requests, which may come while others are sampled. All
        processes call it together. Raises `TrainingError` where no server answers this process any
        more: process 0 cannot ask instead, for what is asked next depends on the answers."""
        self.world.first(lambda: self._first.wake())
        if self.leader is not None:
            yield from self.leader.answering(feed)
            return
        take = partial(taken, feed, self._sample)
        yield from self._fleet.answered(take, self._fleet.at_once)

    def rest(self) -> None:
        """Let servers that sleep give their GPU memory back; all processes have their answers."""
        if self.leader is not None:
            self.leader.rest()

    @property
    def _first(self) -> ServedEngine:
        assert self.leader is not None, "process 0 has the servers"
        return self.leader

    def _tell(self) -> Told:
        return Told(self._first.version, self._first.adapter, self._first.labels())

    def _hear(self, told: Told) -> None:
        self._told = told
        for member in self._fleet.members:
            member.alive, member.lost = member.server.url in told.labels, 0

    def _take_part(self) -> None:
        """What process 0 cannot do alone when it publishes a sharded policy: the canary's forwards,
        and gathering the weights."""
        if not self._told.version and self._policy.is_adapter:
            self._canary.base()
        self._canary.trained()
        gathered_weights(self._policy, keep=False)

    def _asked(self, requests: Sequence[Request]) -> tuple[dict[int, Completion], str]:
        """Answers by the number of their request, and what kept the others from coming."""
        asked = [Asked(partial(self._sample, one), one.sampling.max_tokens) for one in requests]
        found: dict[int, Completion] = {}
        try:
            for number, completion in self._fleet.ask(asked):
                found[number] = completion
        except TrainingError as error:
            return found, str(error)
        return found, ""

    def _sample(self, request: Request, server: Server) -> Completion:
        said = server.sample(request, self._told.adapter, self._stops)
        versions = versions_of(said, self._told.labels[server.url], server.url)
        return completion_of(said, request, versions, self._policy.tokenizer)

    def _asked_again(self, every: Sequence[Missed]) -> list[list[Completion]]:
        """Answers to what each process missed."""
        for rank, one in enumerate(every):
            if one.requests:
                warnings.warn(
                    f"process {rank} got no answer to {len(one.requests)} of its requests "
                    f"({one.problem}); process 0 asks for them",
                    stacklevel=4,
                )
        answers = dict(self._first.generate([r for one in every for r in one.requests]))
        numbers = iter(range(len(answers)))
        return [[answers[next(numbers)] for _ in one.requests] for one in every]


def _left_to_the_first(server: Server) -> None:
    """A server that lost its weights, or was away, gets them from process 0."""
    raise HttpError("process 0 gives it its weights", where=server.url)
