"""Servers as an engine: they sample, the trainer's weights get there, and a canary proves it."""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn, TypeVar

import torch

from strop.engines.canary import Canary
from strop.engines.endings import stop_ids, stopped, text_of
from strop.engines.engine import Chances, PromptedTask, Request, Sampling, prompted_tasks
from strop.engines.feed import Feed
from strop.engines.options import chances_of, option_trees
from strop.engines.served.expect import expect_context
from strop.engines.served.fleet import Asked, Fleet, Member
from strop.engines.served.server import (
    About,
    Labels,
    OtherWeightsError,
    Said,
    Scored,
    Server,
    Span,
    expect_labels,
    versions_of,
    weights_of,
)
from strop.engines.served.sync import Sync
from strop.errors import HttpError, TrainingError, UsageError
from strop.http import refused
from strop.model.logprobs import bare
from strop.model.network import Policy
from strop.recipe.template import AS_IT_IS, TemplateRecipe
from strop.text.encode import Tokenizer
from strop.types import Branch, Completion, Task, Tree, VersionSpan

A = TypeVar("A", Said, Scored)


FIRST = (None, "0", "default")
"""What servers call the weights they were started with: `strop engine serve`; vLLM and SGLang."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a server has, as the canary saw it: `Held(7, {"a1b2-7": 7, "a1b2-6": 6})`.

    `labels` are the names of the weights with their versions: the newest, and where weights are
    replaced in place those whose answers are on their way.
    """

    version: int
    labels: Labels


class ServedEngine:
    """Servers that hold one model, for the policy that is trained.

    Every version is written once, loaded by every server, and proven on each by the canary before
    it samples. What an answer says of its weights has to be what the canary's said. Completions
    carry the version of every span. Samples may be on their way while a version is published.
    """

    def __init__(
        self,
        policy: Policy,
        about: About,
        servers: Sequence[Server],
        sync: Sync,
        canary: Canary,
        *,
        at_once: int,
        sleeps: bool = False,
    ) -> None:
        self._policy, self.about, self.sync, self.canary = policy, about, sync, canary
        self.version = 0
        self.fleet = Fleet([Member(server) for server in servers], at_once, self._give_newest)
        self._stops = sorted(stop_ids(bare(policy.model), policy.tokenizer))
        self._trained_N, self._base_N = torch.empty(0), torch.empty(0)
        self._held: dict[str, Held] = {}
        self._sleeps, self._asleep = sleeps, list[Server]()
        self._flying: Counter[int] = Counter()
        self._counting = threading.Lock()

    def identity(self) -> Mapping[str, Any]:
        urls = [member.server.url for member in self.fleet.members]
        return {"servers": urls, "model": self.about.model, "sync": type(self.sync).__name__}

    @property
    def adapter(self) -> str | None:
        """The adapter to ask for the newest version; `None` is the servers' model itself."""
        return self.sync.adapter(self.version)

    def labels(self) -> dict[str, Labels]:
        """What each server that answers calls its weights, and which versions they are."""
        alive = [member.server.url for member in self.fleet.members if member.alive]
        with self._counting:
            return {url: self._held[url].labels for url in alive}

    def with_template(self, template: TemplateRecipe) -> ServedEngine:
        if template != AS_IT_IS:
            raise UsageError("servers that a run samples from keep the template of its recipe")
        return self

    def prompted(self, tasks: Sequence[Task], sampling: Sampling) -> list[PromptedTask]:
        prompts = prompted_tasks(self._policy.tokenizer, tasks)
        longest = max(prompts, key=lambda one: len(one.prompt_ids))
        expect_context(self.about, len(longest.prompt_ids) + sampling.max_tokens)
        return prompts

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        self.wake()
        yield from self.fleet.ask(
            [
                Asked(partial(self._sample, request), request.sampling.max_tokens)
                for request in requests
            ]
        )

    def answering(self, feed: Feed) -> Iterator[tuple[int, Completion]]:
        """Answers to requests that may come while others are sampled."""
        self.wake()
        take = partial(taken, feed, self._sample)
        yield from self.fleet.answered(take, self.fleet.at_once)

    def score(self, trees: Sequence[Tree]) -> list[tuple[float, ...]]:
        """One text after another: vLLM 0.32 takes the adapter's part of the head for the wrong rows
        where texts with an adapter are scored together."""
        self.wake()
        asked = [
            Asked(partial(self._score, tree.trunk, branch), len(branch.ids))
            for tree in trees
            for branch in tree.branches
        ]
        return [said for one in asked for _, said in self.fleet.ask([one])]

    def choose(self, prompts: Sequence[PromptedTask], options: Sequence[str]) -> list[Chances]:
        trees = option_trees(self._policy.tokenizer, prompts, options)
        return chances_of(trees, self.score(trees))

    def publish(self, weights: Mapping[str, torch.Tensor]) -> int:
        """Write the policy's weights, let every server load them, and prove it."""
        own = dict(self._policy.model.named_parameters())
        if any(own.get(name) is not given for name, given in weights.items()):
            raise UsageError("servers get the weights of the run's own policy, and no others")
        if not self.version and self._policy.is_adapter:
            self._base_N = self.canary.base()
        self.wake()
        with self.fleet.preparing:
            self._trained_N = self.canary.trained()
            self.sync.write(self._policy, self.version + 1, set(self._flying.elements()))
            self.version += 1
            self.fleet.everywhere()
        return self.version

    def rest(self) -> None:
        """Let servers that sleep give their GPU memory back, until they are asked for something or
        get weights."""
        if not self._sleeps:
            return
        with self.fleet.preparing:
            for member in self.fleet.members:
                if member.alive and member.server not in self._asleep:
                    self._asleep.append(member.server)
                    self._warned("did not give its memory back", member.server.sleep)

    def close(self) -> None:
        """Let the servers drop what this run gave them, and remove what it wrote."""
        self.fleet.close()
        self.wake(leaving=True)
        for member in self.fleet.members:
            try:
                self.sync.leave(member.server)
            except HttpError as error:
                warnings.warn(
                    f"{member.server.url} was not told that the run is over and may keep its last "
                    f"adapter: {error.problem}",
                    stacklevel=2,
                )
        self.sync.remove()

    def policy(self) -> NoReturn:
        raise UsageError(
            "a server gives no distributions over the vocabulary",
            fix="measure the model folder instead",
        )

    def wake(self, *, leaving: bool = False) -> None:
        if not self._asleep:
            return
        torch.cuda.empty_cache()  # what the trainer no longer uses is what they take back
        with self.fleet.preparing:
            while self._asleep:
                wake_up = partial(self._asleep.pop().wake_up, leaving=leaving)
                self._warned("did not wake up", wake_up)

    def _warned(self, what: str, tell: Callable[[], None]) -> None:
        """One that fails is found out, and left out, by what it is asked next."""
        try:
            tell()
        except HttpError as error:
            warnings.warn(f"{error.where} {what}: {error.problem}", stacklevel=4)

    def _give_newest(self, server: Server) -> None:
        """Let a server load the newest version, and compare it with the trainer. Raises `HttpError`
        where it fell silent meanwhile, and `TrainingError` where it will not or did not take it."""
        try:
            self.sync.load(server, self.version)
        except HttpError as error:
            if not refused(error):
                raise
            raise TrainingError(
                f"the server took no new weights: {error.problem}", where=server.url,
                fix="start it as docs/engines.md says, so that it may take weights while it runs",
            ) from None  # fmt: skip
        tree = self.canary.tree
        ids = [*tree.trunk, *tree.branches[0].ids]
        said = self._asked(server, self.version, lambda adapter: server.score(ids, adapter))
        if self._policy.is_adapter and server.url not in self._held:
            expect_first_weights(weights_of(server.score(ids, None).spans), server.url)
        label = self.sync.label(self.version)
        if label is not None:
            expect_labels(said.spans, {label: self.version}, server.url)
        try:
            self.canary.expect(server.url, said.logprobs, self._trained_N)
        except TrainingError:
            if self._policy.is_adapter:
                base = server.score(ids, None)
                self.canary.expect_base(
                    server.url, base.logprobs, self._base_N, weights_of(base.spans)
                )
            raise
        with self._counting:
            flying = set(self._flying)
            labels = {weights_of(said.spans): self.version}
            if label is not None and server.url in self._held:
                before = self._held[server.url].labels.items()
                labels |= {name: version for name, version in before if version in flying}
            self._held[server.url] = Held(self.version, labels)
        self.sync.tidy(server, self.version, flying)

    def _sample(self, request: Request, server: Server) -> Completion:
        with self._of(server) as held:
            said = self._asked(
                server, held.version, lambda adapter: server.sample(request, adapter, self._stops)
            )
            labels = self._known(server, held, said.spans)
        versions = versions_of(said, labels, server.url)
        return completion_of(said, request, versions, self._policy.tokenizer)

    def _score(self, trunk: tuple[int, ...], branch: Branch, server: Server) -> tuple[float, ...]:
        """Log-probs of a branch's supervised tokens."""
        ids = [*trunk, *branch.ids]
        with self._of(server) as held:
            said = self._asked(server, held.version, lambda adapter: server.score(ids, adapter))
            expect_labels(said.spans, self._known(server, held, said.spans), server.url)
        own = zip(said.logprobs[len(trunk) - 1 :], branch.supervised, strict=True)
        return tuple(one for one, counts in own if counts)

    @contextmanager
    def _of(self, server: Server) -> Iterator[Held]:
        """What a server holds; inside, that version is on its way."""
        with self._counting:
            held = self._held[server.url]
            self._flying[held.version] += 1
        try:
            yield held
        finally:
            with self._counting:
                self._flying[held.version] -= 1
                self._flying += Counter()  # forget what is at 0

    def _known(self, server: Server, held: Held, spans: Sequence[Span]) -> Labels:
        """What an answer may call its weights. Those of a version that is being published are known
        once the canary has seen them, which is waited for."""
        labels = self._labels(server, held)
        if all(span.label in labels for span in spans):
            return labels
        with self.fleet.preparing:
            return self._labels(server, held)

    def _labels(self, server: Server, held: Held) -> Labels:
        """What a server may call the weights of an answer that was asked for when it held these:
        where they are replaced in place, newer ones may have come while it was sampled."""
        if self.sync.label(held.version) is None:
            return held.labels
        now = self._held[server.url].labels
        return {label: version for label, version in now.items() if version >= held.version}

    def _asked(self, server: Server, version: int, ask: Callable[[str | None], A]) -> A:
        """An answer; `OtherWeightsError` where the server does not know the version's name."""
        adapter = self.sync.adapter(version)
        try:
            return ask(adapter)
        except HttpError as error:
            if refused(error) and not self.sync.holds(server, version):
                raise OtherWeightsError(f"it has no {adapter} any more", where=server.url) from None
            raise


def expect_first_weights(label: str | None, url: str) -> None:
    """Raise `TrainingError` where a server's own weights were replaced since it was started: an
    adapter belongs to those of the recipe's model."""
    if label not in FIRST:
        raise TrainingError(
            f"the server's base weights are not those it was started with: another run replaced "
            f"them, and they are called {label!r}",
            where=url,
            fix="start it anew with model.path of the recipe",
        )


def taken(
    feed: Feed, sample: Callable[[Request, Server], Completion]
) -> tuple[int, Asked[Completion]] | None:
    """The next request of a feed as work for a server; `None` once there is no more."""
    found = feed.take_one()
    if found is None:
        return None
    number, request = found
    return number, Asked(partial(sample, request), request.sampling.max_tokens)


def completion_of(
    said: Said, request: Request, versions: tuple[VersionSpan, ...], tokenizer: Tokenizer
) -> Completion:
    """The answer, every span stamped with the version that sampled it."""
    text = stopped(text_of(tokenizer, said.ids, request.sampling), request.sampling)
    made = Completion.one_turn(said.ids, text, said.logprobs, said.finish)
    made = replace(made, opened=request.prompt.opened, versions=versions)
    if said.routes is None:
        return made
    return replace(made, prompt_routes=said.routes[0], routes=said.routes[1])
