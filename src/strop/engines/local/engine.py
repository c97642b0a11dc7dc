"""A model in this process: the policy that is being trained, or a model folder."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from strop.engines.engine import Chances, PromptedTask, Request, Sampling, prompted_tasks
from strop.engines.feed import Feed
from strop.engines.local.continuous import Continuous, Room
from strop.engines.local.sampler import KeptStep, LocalSampler
from strop.engines.options import chances_of, option_trees
from strop.errors import UsageError
from strop.model.decode import slot_bytes
from strop.model.load import load_for_inference, load_tokenizer, weights_hash
from strop.model.logprobs import bare, eval_mode
from strop.model.network import Policy
from strop.model.prefixes import Prefixes
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


LONGEST_TURN = 1024
"""Tokens until it is looked again whether anybody still decodes."""


class LocalEngine:
    """A model folder (or hub name), loaded when first needed; or a loaded policy.

    Up to `max_rows` answers are decoded at a time, fewer where their keys would take too much
    memory; an answer that ends makes room for the next. `version` counts what was published: 0 are
    the weights it began with.

    With `prefix_bytes` so much of the keys and values of prompts is kept for later calls, and the
    copies of layers that decoding makes on a CPU. Log-probs then depend on what was asked before,
    in their last bits (below 2e-5), because a prompt that is read in other company is rounded
    otherwise: so training, which resumes to the bit, keeps none.
    """

    def __init__(
        self,
        path: str,
        loaded: Policy | None = None,
        template: TemplateRecipe = AS_IT_IS,
        *,
        max_rows: int = 512,
        prefix_bytes: int = 0,
    ) -> None:
        self.path, self._loaded, self.template = path, loaded, template
        self.max_rows, self.prefix_bytes, self.version = max_rows, prefix_bytes, 0
        self._prefixes = Prefixes(prefix_bytes) if prefix_bytes else None
        self._kept = KeptStep() if prefix_bytes else None

    def identity(self) -> Mapping[str, Any]:
        return {"path": self.path, "sha256": weights_hash(self.path)}

    def with_template(self, template: TemplateRecipe) -> LocalEngine:
        loaded = self._loaded
        if loaded is not None and template != AS_IT_IS:
            tokenizer = with_template(copy.deepcopy(loaded.tokenizer), template)
            loaded = replace(loaded, tokenizer=tokenizer)
        return LocalEngine(self.path, loaded, template, max_rows=self.max_rows,
                           prefix_bytes=self.prefix_bytes)  # fmt: skip

    def policy(self) -> Policy:
        if self._loaded is None:
            self._loaded = load_for_inference(self.path, self.template)
        return self._loaded

    def tokenizer(self) -> Any:
        if self._loaded is None:
            return load_tokenizer(self.path, template=self.template)
        return self._loaded.tokenizer

    def context(self) -> int:
        """Tokens that the model reads."""
        config = bare(self.policy().model).config.get_text_config()
        return int(config.max_position_embeddings)

    def prompted(self, tasks: Sequence[Task], sampling: Sampling) -> list[PromptedTask]:
        policy = self.policy()
        prompts = prompted_tasks(policy.tokenizer, tasks)
        longest = max(prompts, key=lambda one: len(one.prompt_ids))
        _expect_room(self.context(), len(longest.prompt_ids) + sampling.max_tokens, longest.task)
        return prompts

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """Shorter prompts first; raises `UsageError` if weights are published before the last
        answer is taken, because the keys of those who decode are the old weights'."""
        began = self.version
        decoding: Continuous[int] = self.open()
        order = sorted(enumerate(requests), key=lambda pair: len(pair[1].prompt.prompt_ids))
        decoding.add(order)
        while decoding.busy:
            if self.version != began:
                raise UsageError("weights were published while answers were decoded",
                                 fix="take all answers of `generate` first")  # fmt: skip
            yield from decoding.step(LONGEST_TURN)

    def answering(self, feed: Feed) -> Iterator[tuple[int, Completion]]:
        """Answers to requests that may come while others decode. Asked for together they are
        answered as `generate` does."""
        decoding: Continuous[int] = self.open()
        while True:
            coming = feed.take(wait=not decoding.busy)
            decoding.add(sorted(coming, key=lambda pair: len(pair[1].prompt.prompt_ids)))
            if not decoding.busy:
                return
            yield from decoding.step(LONGEST_TURN, lambda: feed.stirred)

    def open(self, weights: str = "") -> Continuous[Any]:
        """An empty decoder that requests can join at any time; its answers are `version`'s.
        `weights` says which adapter is switched on whenever it steps."""
        room = Room(self.max_rows, self._max_slots, LEAST_ROWS)
        name = f"{self.version}/{weights}"
        return Continuous(self._sampler, self.version, room, self._prefixes, name)

    def around(self, model: Any) -> LocalEngine:
        """This engine, asked by a peft model around its own model (or by that model itself): what
        was read of prompts stays, and so do those who decode."""
        same = copy.copy(self)
        same._loaded = replace(self.policy(), model=model)
        return same

    def expect_able(self, sampling: Sampling) -> None:
        """Raise `UsageError` for a sampling that this model cannot be asked for. A grammar is made
        ready for those who ask for it, which may take a while: from any thread."""
        self._sampler.expect_able(sampling)

    @torch.no_grad()
    def score(self, trees: Sequence[Tree]) -> list[tuple[float, ...]]:
        policy = self.policy()
        with eval_mode(policy.model), policy.arithmetic():
            scores = policy.score(trees)
        lengths = [int(length) for length in scores.lengths_B()]
        return [tuple(part.tolist()) for part in scores.logprobs_N.split(lengths)]

    def choose(self, prompts: Sequence[PromptedTask], options: Sequence[str]) -> list[Chances]:
        trees = option_trees(self.policy().tokenizer, prompts, options)
        scores = [logprobs for held in runs(trees, TOKENS_AT_ONCE) for logprobs in self.score(held)]
        return chances_of(trees, scores)

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
        self.forget_prefixes()
        self.forget_layers()
        return self.version

    def forget_prefixes(self) -> None:
        """Drop what older weights read of prompts."""
        if self._prefixes is not None:
            self._prefixes.forget()

    def forget_layers(self) -> None:
        """Drop copies of layers: their weights, or the adapters around them, are others now."""
        if self._kept is not None:
            self._kept.forget()

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
        return LocalSampler(self.policy(), self._kept)


def _expect_room(context: int, tokens: int, task: Task) -> None:
    if tokens > context:
        raise UsageError(
            f"the longest prompt and its answer need {tokens} tokens, the model reads {context}",
            where=str(task.origin),
            fix="lower sampling.max_tokens or shorten the prompts",
        )
