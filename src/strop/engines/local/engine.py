"""A model in this process: the policy that is being trained, or a model folder."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from typing import Any

import torch

from strop.engines.engine import (
    Chances,
    PromptedTask,
    Request,
    Sampling,
    chances_of,
    prompted_tasks,
)
from strop.engines.local.sampler import LocalSampler
from strop.errors import UsageError
from strop.model.decode import slot_bytes, slots_of
from strop.model.load import load_for_inference, load_tokenizer, weights_hash
from strop.model.logprobs import bare, eval_mode
from strop.model.network import Policy
from strop.recipe.template import AS_IT_IS, TemplateRecipe
from strop.text.chat.named import with_template
from strop.text.runs import runs
from strop.types import Completion, Task, Tree

KEYS_AT_LEAST = {"cpu": 3 * 2**27}
KEYS_AT_LEAST_ELSEWHERE = 2**32
"""Bytes that keys and values may always take; above that, half of what the weights do. 384 MiB on
a CPU, 4 GiB on a device whose memory is its own."""

TOKENS_AT_ONCE = 8192
"""Tokens of one forward where options are weighed."""

LEAST_ROWS = 64
"""So many answers are decoded at once, however long they may get: a step reads all weights, and few
answers reach their longest."""


class LocalEngine:
    """A model folder (or hub name), loaded when first needed; or a loaded policy.

    Up to `max_rows` answers are decoded at a time, fewer where their keys would take too much
    memory. `version` counts what was published: 0 are the
    weights it began with.
    """

    def __init__(
        self,
        path: str,
        loaded: Policy | None = None,
        template: TemplateRecipe = AS_IT_IS,
        *,
        max_rows: int = 512,
    ) -> None:
        self.path, self._loaded, self.template = path, loaded, template
        self.max_rows, self.version = max_rows, 0

    def identity(self) -> Mapping[str, Any]:
        return {"path": self.path, "sha256": weights_hash(self.path)}

    def with_template(self, template: TemplateRecipe) -> LocalEngine:
        loaded = self._loaded
        if loaded is not None and template != AS_IT_IS:
            tokenizer = with_template(copy.deepcopy(loaded.tokenizer), template)
            loaded = replace(loaded, tokenizer=tokenizer)
        return LocalEngine(self.path, loaded, template, max_rows=self.max_rows)

    def policy(self) -> Policy:
        if self._loaded is None:
            self._loaded = load_for_inference(self.path, self.template)
        return self._loaded

    def tokenizer(self) -> Any:
        if self._loaded is None:
            return load_tokenizer(self.path, template=self.template)
        return self._loaded.tokenizer

    def prompted(self, tasks: Sequence[Task], sampling: Sampling) -> list[PromptedTask]:
        policy = self.policy()
        prompts = prompted_tasks(policy.tokenizer, tasks)
        longest = max(prompts, key=lambda one: len(one.prompt_ids))
        _expect_room(policy, len(longest.prompt_ids) + sampling.max_tokens, longest.task)
        return prompts

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        for packed in packs(requests, self.max_rows, self._max_slots):
            completions = self._sampler.sample([requests[i] for i in packed], self.version)
            yield from zip(packed, completions, strict=True)

    @torch.no_grad()
    def score(self, trees: Sequence[Tree]) -> list[tuple[float, ...]]:
        policy = self.policy()
        with eval_mode(policy.model), policy.arithmetic():
            scores = policy.score(trees)
        lengths = [int(length) for length in scores.lengths_B()]
        return [tuple(part.tolist()) for part in scores.logprobs_N.split(lengths)]

    def choose(self, prompts: Sequence[PromptedTask], options: Sequence[str]) -> list[Chances]:
        def score(trees: Sequence[Tree]) -> list[tuple[float, ...]]:
            return [one for held in runs(trees, TOKENS_AT_ONCE) for one in self.score(held)]

        return chances_of(self.policy().tokenizer, prompts, options, score)

    def publish(self, weights: Mapping[str, torch.Tensor]) -> int:
        """Copies weights that are not the model's own tensors; in training all are its own, so none
        is copied."""
        own = dict(self.policy().model.named_parameters())
        unknown = weights.keys() - own.keys()
        if unknown:
            raise UsageError(f"the model has no weights {min(unknown)!r}", where=self.path)
        with torch.no_grad():
            for name, given in weights.items():
                if given is not own[name]:
                    own[name].copy_(given)
        self.version += 1
        return self.version

    @cached_property
    def _max_slots(self) -> float:
        """Keys of so many tokens are held at once; a decoder without keys has no bound."""
        if not self._sampler.by_tree:
            return math.inf
        causal_lm = self._sampler.causal_lm
        held: int = sum(p.numel() * p.element_size() for p in causal_lm.parameters())
        at_least = KEYS_AT_LEAST.get(causal_lm.device.type, KEYS_AT_LEAST_ELSEWHERE)
        return max(held // 2, at_least) // slot_bytes(causal_lm)

    @cached_property
    def _sampler(self) -> LocalSampler:
        return LocalSampler(self.policy())


def packs(
    requests: Sequence[Request], max_rows: int, max_slots: float = math.inf
) -> Iterator[list[int]]:
    """Indices of requests to decode together: with equal sampling, and of similar length, since
    shorter prompts are padded. A prompt's group stays together, even if larger than `max_rows`.

    Beyond `LEAST_ROWS` the keys of all answers at their longest have to fit `max_slots`.
    """
    groups = [
        list(found) for _, found in groupby(range(len(requests)), lambda i: _group(requests[i]))
    ]
    for sampling in dict.fromkeys(request.sampling for request in requests):
        mine = [group for group in groups if requests[group[0]].sampling == sampling]
        mine.sort(key=lambda group: len(requests[group[0]].prompt.prompt_ids))
        pack: list[int] = []
        held = 0
        for group in mine:
            prompt = len(requests[group[0]].prompt.prompt_ids)
            slots = slots_of(prompt, len(group), sampling.max_tokens)
            rows = len(pack) + len(group)
            if pack and (rows > max_rows or (rows > LEAST_ROWS and held + slots > max_slots)):
                yield pack
                pack, held = [], 0
            pack = pack + group
            held += slots
        yield pack


def _group(request: Request) -> tuple[int, Sampling]:
    return id(request.prompt), request.sampling


def _expect_room(policy: Policy, tokens: int, task: Task) -> None:
    context = bare(policy.model).config.get_text_config().max_position_embeddings
    if tokens > context:
        raise UsageError(
            f"the longest prompt and its answer need {tokens} tokens, the model reads {context}",
            where=str(task.origin),
            fix="lower sampling.max_tokens or shorten the prompts",
        )
