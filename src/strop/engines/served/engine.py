"""Servers as an engine: they sample, the trainer's weights get there, and a canary proves it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import torch

from strop.engines.canary import Canary
from strop.engines.endings import stop_ids
from strop.engines.engine import Chances, PromptedTask, Request, Sampling, prompted_tasks
from strop.engines.options import chances_of, option_trees
from strop.engines.served.expect import expect_context
from strop.engines.served.fleet import Asked, Fleet, Member
from strop.engines.served.server import About, Server
from strop.engines.served.sync import Sync
from strop.engines.served.wire import body_of, completion_of, expect_weights_of
from strop.errors import HttpError, TrainingError, UsageError
from strop.model.logprobs import bare
from strop.model.network import Policy
from strop.recipe.template import AS_IT_IS, TemplateRecipe
from strop.types import Branch, Completion, Task, Tree


class ServedEngine:
    """Servers that hold one model, for the policy that is trained.

    Every version is written once, loaded by every server, and proven on each by the canary before
    it samples. Completions carry the version they were asked of.
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
    ) -> None:
        self._policy, self.about, self.sync, self.canary = policy, about, sync, canary
        self.version = 0
        self.fleet = Fleet([Member(server) for server in servers], at_once, self._give_newest)
        self._stops = sorted(stop_ids(bare(policy.model), policy.tokenizer))
        self._trained_N = torch.empty(0)

    def identity(self) -> Mapping[str, Any]:
        urls = [member.server.url for member in self.fleet.members]
        return {"servers": urls, "model": self.about.model, "sync": type(self.sync).__name__}

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
        version, model = self.version, self.sync.model(self.version, self.about.model)
        yield from self.fleet.ask(
            [
                Asked(partial(self._sample, request, model, version), request.sampling.max_tokens)
                for request in requests
            ]
        )

    def score(self, trees: Sequence[Tree]) -> list[tuple[float, ...]]:
        """One text after another: vLLM 0.32 takes the adapter's part of the head for the wrong rows
        where texts with an adapter are scored together."""
        model = self.sync.model(self.version, self.about.model)
        asked = [
            Asked(partial(_branch_scores, tree.trunk, branch, model), len(branch.ids))
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
        self._trained_N = self.canary.trained()
        self.sync.write(self._policy, self.version + 1)
        self.version += 1
        self.fleet.everywhere()
        return self.version

    def policy(self) -> NoReturn:
        raise UsageError(
            "a server gives no distributions over the vocabulary",
            fix="measure the model folder instead",
        )

    def _give_newest(self, server: Server) -> None:
        """Let a server load the newest version, and compare it with the trainer."""
        try:
            self.sync.load(server, self.version)
        except HttpError as error:
            raise TrainingError(
                f"the server took no new weights: {error.problem}", where=server.url,
                fix="start it as docs/engines.md says, so that it may take weights while it runs",
            ) from None  # fmt: skip
        model = self.sync.model(self.version, self.about.model)
        tree = self.canary.tree
        said = _branch_scores(tree.trunk, tree.branches[0], model, server)
        self.canary.expect(server.url, said, self._trained_N)

    def _sample(self, request: Request, model: str, version: int, server: Server) -> Completion:
        said = server.generate(body_of(request, model, self._stops))
        completion = completion_of(said, request, version, self._policy.tokenizer, server.url)
        expect_weights_of(said, self.sync.label(version), server.url)
        return completion


def _branch_scores(
    trunk: tuple[int, ...], branch: Branch, model: str, server: Server
) -> tuple[float, ...]:
    """Log-probs of a branch's supervised tokens."""
    said = server.score([*trunk, *branch.ids], model)[len(trunk) - 1 :]
    return tuple(one for one, counts in zip(said, branch.supervised, strict=True) if counts)
