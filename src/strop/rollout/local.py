"""The embedded sampler: the policy that is being trained, asked directly.

Deterministic per (seed, step, prompt, index) whatever the batch size: every completion owns a
counter-based random stream keyed by those four, so neither order nor company changes it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from strop.model.decode import Decoder, RereadDecoder, TreeDecoder
from strop.model.logprobs import bare, eval_mode, honours_tree
from strop.rollout.sampler import Sampling, draw, sampling_logprobs
from strop.text.parse import decode
from strop.types import Completion, FinishReason

REPACK_BELOW = 0.7
"""Rows are repacked when fewer than this share of the slots is still alive."""


@dataclass(slots=True)
class Row:
    """A completion in the making."""

    group: int
    uniforms: np.ndarray[Any, np.dtype[np.float64]]
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: FinishReason | None = None


class LocalSampler:
    """Samples from a transformers (or peft) model in this process."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_rows: int = 512,
        arithmetic: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.model, self.arithmetic = model, arithmetic
        self.causal_lm = bare(model)
        self.tokenizer = tokenizer
        self.max_rows = max_rows
        self.by_tree = honours_tree(self.causal_lm)
        self.stop_ids = stop_ids(self.causal_lm, tokenizer)

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[tuple[int, ...]],
        *,
        group_size: int,
        sampling: Sampling,
        seed: int,
        step: int,
    ) -> list[tuple[Completion, ...]]:
        """`group_size` completions per prompt; dropout off, whatever mode the model is in."""
        seen: Counter[tuple[int, ...]] = Counter()
        groups = []
        for prompt in prompts:
            first = seen[prompt]
            seen[prompt] += group_size
            indices = range(first, first + group_size)
            groups.append([_uniforms(seed, step, prompt, i, sampling.max_tokens) for i in indices])
        # similar lengths together: less padding among prompt keys
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        per_call = max(1, self.max_rows // group_size)
        done: dict[int, tuple[Completion, ...]] = {}
        with eval_mode(self.model), self.arithmetic():
            for start in range(0, len(order), per_call):
                part = order[start : start + per_call]
                rows = [Row(g, u) for g, i in enumerate(part) for u in groups[i]]
                self._decode([prompts[i] for i in part], rows, group_size, sampling)
                finished = [self._completion(row, sampling) for row in rows]
                for g, i in enumerate(part):
                    done[i] = tuple(finished[g * group_size : (g + 1) * group_size])
        return [done[i] for i in range(len(prompts))]

    def _decode(
        self, prompts: list[tuple[int, ...]], rows: list[Row], width: int, sampling: Sampling
    ) -> None:
        """Fill every row, one token a round; `slots` holds the rows in the decoder's layout."""
        decoder: Decoder = (TreeDecoder if self.by_tree else RereadDecoder)(self.causal_lm)
        slots = list(rows)
        logits = decoder.prefill(prompts, width).repeat_interleave(width, 0)
        for place in range(sampling.max_tokens):
            uniform_R = torch.tensor([row.uniforms[place] for row in slots], device=logits.device)
            logprobs_RV = sampling_logprobs(logits, sampling)
            token_R = draw(logprobs_RV, uniform_R)
            logprob_R = logprobs_RV.gather(1, token_R[:, None]).squeeze(1)
            drawn = zip(slots, token_R.tolist(), logprob_R.tolist(), strict=True)
            for row, token, logprob in drawn:
                self._extend(row, token, logprob, sampling)
            alive = [slot for slot, row in enumerate(slots) if row.finish is None]
            if not alive or place + 1 == sampling.max_tokens:
                break
            if len(alive) < REPACK_BELOW * len(slots):
                slots, kept, width = _repack(decoder, slots, alive, width)
                token_R = token_R[kept]
            logits = decoder.step(token_R)

    def _extend(self, row: Row, token: int, logprob: float, sampling: Sampling) -> None:
        if row.finish is not None:
            return
        row.ids.append(token)
        row.logprobs.append(logprob)
        if token in self.stop_ids:
            row.finish = "stop"
        elif sampling.stop:
            text = decode(self.tokenizer, row.ids)
            row.finish = "stop" if any(stop in text for stop in sampling.stop) else None

    def _completion(self, row: Row, sampling: Sampling) -> Completion:
        text = decode(self.tokenizer, row.ids)
        for stop in sampling.stop:
            text = text.split(stop, 1)[0]
        return Completion(tuple(row.ids), text, tuple(row.logprobs), row.finish or "length")


def stop_ids(causal_lm: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends an answer: the tokenizer's EOS and the generation config's."""
    configured = causal_lm.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [tokenizer.eos_token_id, *listed] if i is not None)


def _uniforms(
    seed: int, step: int, prompt: tuple[int, ...], index: int, count: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    text = f"{seed}/{step}/{index}/{','.join(map(str, prompt))}"
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key)).random(count)


def _repack(
    decoder: Decoder, slots: list[Row], alive: list[int], width: int
) -> tuple[list[Row], torch.Tensor, int]:
    """Keep groups with live rows, as many slots each as the fullest needs.

    A group with fewer live rows is filled up with its own finished ones, whose tokens are ignored.
    """
    members: dict[int, list[int]] = {}
    for slot in alive:
        members.setdefault(slot // width, []).append(slot)
    widest = max(map(len, members.values()))
    kept: list[int] = []
    for group, live in members.items():
        finished = [s for s in range(group * width, (group + 1) * width) if s not in live]
        kept += (live + finished)[:widest]
    groups = torch.tensor(list(members))
    rows = torch.tensor(kept)
    decoder.keep(groups, rows, widest)
    return [slots[slot] for slot in kept], rows, widest
