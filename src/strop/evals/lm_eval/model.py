"""lm-eval's model protocol over a policy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Sampling, in_groups, requests_of
from strop.engines.local.engine import LocalEngine
from strop.errors import UsageError
from strop.evals.continuations import (
    Continuation,
    Ids,
    context_of,
    continuing,
    pair_ids,
    prefix_id,
    read_continuations,
    windows,
)
from strop.files import sha256_hex
from strop.model.network import Policy
from strop.text.encode import Encoder
from strop.types import Message, Origin, Task, Tree

READ = ("do_sample", "temperature", "top_p", "top_k", "min_p", "until", "max_gen_toks")
"""Generation settings that are honoured; lm-eval writes its synonyms as these."""


class LmEvalModel:
    """Answers lm-eval's three kinds of request with the numbers of its own `hf` model.

    It has the methods of `lm_eval.api.model.LM` and is registered as a subclass when a task runs,
    so that this file does not import lm-eval. Choices of one question are branches of one tree.
    """

    rank, world_size = 0, 1

    def __init__(self, policy: Policy, *, seed: int = 0) -> None:
        self.policy, self.seed = policy, seed
        self.tokenizer = policy.tokenizer
        self.encoder = Encoder(policy.tokenizer)
        self.max_length = context_of(policy)

    @property
    def device(self) -> torch.device:
        return self.policy.device

    @property
    def tokenizer_name(self) -> str:
        """Names tokenizer and chat template, so that cached requests are not mixed."""
        template = str(self.tokenizer.chat_template)
        return f"{self.tokenizer.name_or_path}-{sha256_hex(template, 12)}"

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """(log-prob, whether greedy decoding would write it) of every (context, continuation)."""
        pairs = [self._pair(*request.args) for request in requests]
        branches: dict[Ids, dict[Ids, int]] = {}
        for trunk, branch in pairs:
            branches.setdefault(trunk, {}).setdefault(branch, len(branches.get(trunk, {})))
        trees = [continuing(trunk, list(found)) for trunk, found in branches.items()]
        read = iter(read_continuations(self.policy, trees))
        known = {
            (trunk, branch): next(read) for trunk, found in branches.items() for branch in found
        }
        return [_answer(known[pair]) for pair in pairs]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Log-prob of every text, each token predicted once; a BOS that the tokenizer adds is one
        of them, as in lm-eval."""
        asked = [self._windows(*request.args) for request in requests]
        read = iter(read_continuations(self.policy, [tree for trees in asked for tree in trees]))
        return [sum(next(read).logprob for _ in trees) for trees in asked]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answer to every (context, settings), without the text it was to stop at."""
        alike: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            alike.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(number)
        texts: dict[int, str] = {}
        engine, key = LocalEngine("in memory", self.policy), DrawKey(self.seed, "eval")
        for settings, numbers in alike.items():
            sampling = sampling_of(json.loads(settings))
            prompts = [self._prompted(requests[n].args[0], sampling.max_tokens) for n in numbers]
            groups = in_groups(engine.generate(requests_of(prompts, sampling, key, 1)), 1)
            texts |= {n: answer.text for n, (answer,) in zip(numbers, groups, strict=True)}
        return [texts[number] for number in range(len(requests))]

    def apply_chat_template(
        self, chat_history: list[Message], add_generation_prompt: bool = True
    ) -> str:
        """Messages as text; without a generation prompt the last one is left open."""
        return self.encoder.chat.write(
            chat_history, generation=add_generation_prompt, continued=not add_generation_prompt
        )

    def _pair(self, context: str, continuation: str) -> tuple[Ids, Ids]:
        """Trunk and branch; a context that is too long is cut at its beginning, as in lm-eval."""
        if context:
            trunk, branch = pair_ids(self.encoder, context, continuation)
        else:
            prefix, said = prefix_id(self.tokenizer), self.encoder.ids(continuation, special=False)
            own = said[:1] == (prefix,)
            trunk, branch = (said[:1], said[1:]) if own else ((prefix,), said)
        if not 0 < len(branch) <= self.max_length:
            raise UsageError(
                f"lm-eval asks for a continuation of {len(branch)} tokens after {context[-40:]!r}, "
                f"the model reads 1 to {self.max_length}",
                fix="mend doc_to_choice or target_delimiter in the task's YAML",
            )
        return trunk[-(self.max_length + 1 - len(branch)) :], branch

    def _windows(self, text: str) -> list[Tree]:
        ids = self.encoder.ids(text, special=True)
        return windows(ids, prefix_id(self.tokenizer), self.max_length) if ids else []

    def _prompted(self, context: str, max_tokens: int) -> PromptedTask:
        room = self.max_length - max_tokens
        if room < 1:
            raise UsageError(
                f"lm-eval asks for answers of {max_tokens} tokens, the model reads "
                f"{self.max_length} with the prompt",
                fix="set generation_kwargs.max_gen_toks in the task's YAML",
            )
        ids = self.encoder.ids(context, special=True)[-room:] or (prefix_id(self.tokenizer),)
        return PromptedTask(Task(context, {}, Origin("lm-eval", 0)), ids)


def sampling_of(settings: Mapping[str, Any]) -> Sampling:
    """lm-eval's `generation_kwargs`. Raises `UsageError` for one that would not be read."""
    from lm_eval.models.utils import normalize_gen_kwargs  # the extra `lm-eval`

    asked: dict[str, Any] = dict(normalize_gen_kwargs(dict(settings)))
    unread = [name for name in asked if name not in READ]
    if unread:
        raise UsageError(
            f"the task's generation_kwargs set {unread[0]}, which is not read here",
            fix=f"drop it from the task's YAML; read are {', '.join(READ)}",
        )
    return Sampling(
        temperature=float(asked.get("temperature", 1.0)) if asked["do_sample"] else 0.0,
        top_p=float(asked.get("top_p", 1.0)),
        top_k=int(asked.get("top_k", 0)),
        min_p=float(asked.get("min_p", 0.0)),
        max_tokens=asked["max_gen_toks"],
        stop=tuple(stop for stop in asked["until"] if stop),
        include_stop_str_in_output=False,
    )


def _answer(read: Continuation) -> tuple[float, bool]:
    return read.logprob, read.greedy
