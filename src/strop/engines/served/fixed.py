"""Servers that hold a model folder, as an engine that is asked and never gets new weights: for
evals, decoding studies, judges and generated data."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, NoReturn, TypeVar

import torch

from strop.engines.engine import Chances, PromptedTask, Request, Sampling, prompted_tasks
from strop.engines.feed import Feed
from strop.engines.options import chances_of, option_trees
from strop.engines.served.engine import completion_of
from strop.engines.served.expect import expect_context, expect_tokenizer, reached
from strop.engines.served.fleet import Asked, Fleet, Member
from strop.engines.served.holding import Holding
from strop.engines.served.kinds import KINDS
from strop.engines.served.server import About, Server
from strop.errors import HttpError, TrainingError, UnscoredError, UsageError
from strop.model.adapters import adapter_base, adapter_rank, is_adapter_folder
from strop.model.load import load_config, load_tokenizer, weights_hash
from strop.model.network import Policy
from strop.recipe.template import AS_IT_IS, TemplateRecipe
from strop.recipe.train.engine import HoldersRecipe
from strop.text.encode import Tokenizer
from strop.types import Branch, Completion, Task, Tree, VersionSpan

T = TypeVar("T")

AFTER = 1
"""Servers sample so many tokens after a text that they score, at the least; they need room, too."""


class FixedEngine:
    """The model of a folder on servers: ids out, ids and log-probs back.

    Before the first request each server has to have the folder's tokenizer and chat template, and
    its log-probs of a fixed text; the log-probs again after every batch, so that what came back is
    the folder's even where a server was restarted or given other weights meanwhile. An adapter's
    folder is loaded on the servers under a name of its own, and unloaded when the engine is gone.
    Servers that run in a way in which no run could be repeated are refused, unless nothing is
    drawn (`samples=False`).
    """

    def __init__(
        self,
        path: str,
        recipe: HoldersRecipe,
        template: TemplateRecipe = AS_IT_IS,
        *,
        samples: bool = True,
    ) -> None:
        self.path, self.recipe, self.template = path, recipe, template
        self._samples = samples
        self._kind = KINDS[recipe.kind]
        self._servers = [self._kind.connect(url, seconds=recipe.seconds) for url in recipe.url]

    def identity(self) -> Mapping[str, Any]:
        urls = [server.url for server in self._servers]
        known = {"path": self.path, "sha256": weights_hash(self.path)}
        return {**known, "engine": self.recipe.kind, "servers": urls}

    def with_template(self, template: TemplateRecipe) -> FixedEngine:
        """Prompts are written here, so that servers need not know the template."""
        return FixedEngine(self.path, self.recipe, template, samples=self._samples)

    def expect(self) -> None:
        """Look at every server; no model is loaded or asked.

        Raises `UsageError` for one that does not answer, reads other tokens, or says that it serves
        another folder.
        """
        self._abouts  # noqa: B018 - looking is all that is wanted

    def prove(self) -> None:
        """Look at every server, and compare its log-probs with the folder's."""
        self._fleet  # noqa: B018 - proving is all that is wanted

    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def context(self) -> int:
        """Tokens that the model and all servers read."""
        bounds = [about.context for about in self._abouts if about.context is not None]
        return min([self.positions, *bounds])

    def longest(self) -> int:
        """Tokens of the longest text that all servers can score."""
        return self.context() - AFTER

    @cached_property
    def positions(self) -> int:
        """Tokens that the model of the folder reads."""
        return int(load_config(self.path).get_text_config().max_position_embeddings)

    def prompted(self, tasks: Sequence[Task], sampling: Sampling) -> list[PromptedTask]:
        prompts = prompted_tasks(self._tokenizer, tasks)
        self._expect_room(max(len(one.prompt_ids) for one in prompts) + sampling.max_tokens)
        return prompts

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        held, tokenizer = self._held, self._tokenizer
        asked = [
            Asked(partial(_sample, request, held, tokenizer), request.sampling.max_tokens)
            for request in requests
        ]
        yield from self._proven(asked)

    def score(self, trees: Sequence[Tree]) -> list[tuple[float, ...]]:
        longest = max(len(tree.trunk) + len(one.ids) for tree in trees for one in tree.branches)
        self._expect_room(longest + AFTER)
        asked = [
            Asked(partial(_branch_scores, tree.trunk, branch, self._held), len(branch.ids))
            for tree in trees
            for branch in tree.branches
        ]
        found = dict(self._proven(asked))
        return [found[number] for number in range(len(asked))]

    def choose(self, prompts: Sequence[PromptedTask], options: Sequence[str]) -> list[Chances]:
        trees = option_trees(self._tokenizer, prompts, options)
        return chances_of(trees, self.score(trees))

    def publish(self, weights: Mapping[str, torch.Tensor]) -> int:
        raise UsageError(
            "these servers hold a model that is measured, and get no weights",
            fix="let a recipe name them under rollout.engine, or `strop.train` has its own",
        )

    def policy(self) -> Policy:
        self._no_policy()

    def _no_policy(self) -> NoReturn:
        raise UsageError(
            "servers give log-probs of given tokens, and no distributions over the vocabulary",
            where=self._servers[0].url, fix="measure the model folder without --engine",
        )  # fmt: skip

    @cached_property
    def _tokenizer(self) -> Any:
        own = load_tokenizer(self.path)
        if self.template == AS_IT_IS:
            return own
        made = load_tokenizer(self.path, template=self.template)
        if len(made) > len(own):
            raise UsageError(
                f"the chat template {self.template.chat_template} adds tokens that the servers' "
                "model does not have", where=self._servers[0].url,
                fix="measure the model folder without --engine",
            )  # fmt: skip
        return made

    @cached_property
    def _abouts(self) -> list[About]:
        adapter = is_adapter_folder(self.path)
        model = adapter_base(self.path) if adapter else self.path
        rank = adapter_rank(self.path) if adapter else None
        own = load_tokenizer(self.path)
        abouts = []
        for server in self._servers:
            about = reached(server, self._kind, model, context=self.positions, rank=rank)
            expect_tokenizer(server, about, own, self.path)
            abouts.append(about)
        return abouts

    @cached_property
    def _held(self) -> Holding:
        self.expect()
        limit, context = self.recipe.limit, self.context()
        held = Holding(self.path, limit, context=context, samples=self._samples)
        weakref.finalize(self, held.leave, self._servers)
        return held

    @cached_property
    def _fleet(self) -> Fleet:
        members = [Member(server) for server in self._servers]
        fleet = Fleet(members, self.recipe.at_once, self._held.prepare)
        fleet.everywhere()
        return fleet

    def _expect_room(self, tokens: int) -> None:
        for about in self._abouts:
            expect_context(about, tokens)

    def answering(self, feed: Feed) -> Iterator[tuple[int, Completion]]:
        """Answers to requests that may come while others are sampled; the servers show that they
        still hold the model once all are answered."""
        held, tokenizer = self._held, self._tokenizer

        def take() -> tuple[int, Asked[Completion]] | None:
            taken = feed.take_one()
            if taken is None:
                return None
            number, request = taken
            work = partial(_sample, request, held, tokenizer)
            return number, Asked(work, request.sampling.max_tokens)

        with _told():
            yield from self._fleet.answered(take, self._fleet.at_once)
        self._expect_still()

    def _proven(self, asked: Sequence[Asked[T]]) -> list[tuple[int, T]]:
        """(number, result), given out when the servers that still answer have shown that they still
        hold the model."""
        with _told():
            found = list(self._fleet.ask(asked))
        self._expect_still()
        return found

    def _expect_still(self) -> None:
        for member in self._fleet.members:
            if member.alive:
                member.alive = self._held.still(member.server)


@contextmanager
def _told() -> Iterator[None]:
    """Raise `UnscoredError` for what servers refuse, and where none is left."""
    try:
        yield
    except HttpError as error:
        raise UnscoredError(f"the server refuses a request ({error.problem})",
                            where=error.where) from None  # fmt: skip
    except TrainingError as error:
        raise UnscoredError(
            error.problem, where=error.where,
            fix="start one (docs/engines.md has the command) and give the same command again: "
            "parts that were answered are not asked again",
        ) from None  # fmt: skip


def _sample(request: Request, held: Holding, tokenizer: Tokenizer, server: Server) -> Completion:
    said = server.sample(request, held.adapter, held.stops)
    versions = (VersionSpan(0, len(said.ids), 0),) if said.ids else ()
    return completion_of(said, request, versions, tokenizer)


def _branch_scores(
    trunk: tuple[int, ...], branch: Branch, held: Holding, server: Server
) -> tuple[float, ...]:
    """Log-probs of a branch's supervised tokens."""
    said = held.score([*trunk, *branch.ids], server)[len(trunk) - 1 :]
    return tuple(one for one, counts in zip(said, branch.supervised, strict=True) if counts)
