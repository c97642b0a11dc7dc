"""The embedded sampler: the policy that is being trained, asked directly.

Deterministic per (seed, step, prompt, index) whatever the batch size: every completion owns a
counter-based random stream keyed by those four, so neither order nor company changes it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from strop.engines.engine import Sampling, draw, kept_logits
from strop.model.decode import Decoder, RereadDecoder, TreeDecoder, honours_plain, places
from strop.model.logprobs import bare, eval_mode, honours_tree
from strop.text.ends import ends_of
from strop.text.parse import decode
from strop.types import Completion, FinishReason

REPACK_BELOW = 0.9
"""The decoder's rows are repacked when fewer than this share of them is still wanted."""

Uniforms = np.ndarray[Any, np.dtype[np.float64]]


class Drawn:
    """Tokens, their log-probs and whether they end the answer: a row per completion, a column per
    round. What stands after a row's first end is never read."""

    def __init__(self, rows: int, rounds: int, device: torch.device) -> None:
        self.ids_RT = torch.zeros(rows, rounds, dtype=torch.long, device=device)
        self.logprobs_RT = torch.zeros(rows, rounds, device=device)
        self.ends_RT = torch.zeros(rows, rounds, dtype=torch.bool, device=device)

    def completions(self) -> Iterator[tuple[list[int], list[float], FinishReason]]:
        """Ids, log-probs and why it ended, one row after the other."""
        stopped_R = self.ends_RT.any(1)
        length_R = torch.where(stopped_R, self.ends_RT.int().argmax(1) + 1, self.ends_RT.shape[1])
        rows = (self.ids_RT, self.logprobs_RT, length_R, stopped_R)
        for ids, logprobs, length, stopped in zip(*(x.tolist() for x in rows), strict=True):
            yield ids[:length], logprobs[:length], "stop" if stopped else "length"


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
        self.plain = self.by_tree and honours_plain(self.causal_lm)
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
        indices = list(_indices(prompts, group_size))
        # similar lengths together: less padding among prompt keys
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        per_call = max(1, self.max_rows // group_size)
        done: dict[int, tuple[Completion, ...]] = {}
        with eval_mode(self.model), self.arithmetic():
            for start in range(0, len(order), per_call):
                part = order[start : start + per_call]
                asked = [(prompts[i], index) for i in part for index in indices[i]]
                uniforms = [_uniforms(seed, step, *key, sampling.max_tokens) for key in asked]
                drawn = self._decode([prompt for prompt, _ in asked], np.stack(uniforms), sampling)
                finished = [self._completion(*row, sampling) for row in drawn.completions()]
                for g, i in enumerate(part):
                    done[i] = tuple(finished[g * group_size : (g + 1) * group_size])
        return [done[i] for i in range(len(prompts))]

    def _decode(
        self, prompts: list[tuple[int, ...]], uniforms: Uniforms, sampling: Sampling
    ) -> Drawn:
        """One token a round for every answer that is not over, `row_A` of those asked for.

        Answers that begin alike are one row of the decoder, `stem_A`, until they part.
        """
        device = self.causal_lm.device
        uniforms_RT = torch.from_numpy(uniforms).to(device)
        rows, rounds = uniforms.shape
        drawn, decoder = Drawn(rows, rounds, device), self._decoder()
        distinct = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
        logits = decoder.prefill(list(distinct), rows)
        stem_A = torch.tensor([distinct[prompt] for prompt in prompts], device=device)
        stop_S = torch.tensor(sorted(self.stop_ids), device=device)
        row_A = torch.arange(rows, device=device)
        for place in range(rounds):
            allowed = kept_logits(logits, sampling)
            token_A, logprob_A = draw(allowed, stem_A, uniforms_RT[row_A, place])
            drawn.ids_RT[row_A, place] = token_A
            drawn.logprobs_RT[row_A, place] = logprob_A
            ends_A = (token_A[:, None] == stop_S).any(1)
            if sampling.stop:
                ends_A |= self._said(sampling, drawn.ids_RT[row_A, : place + 1])
            drawn.ends_RT[row_A, place] = ends_A
            goes_on = (~ends_A).nonzero().squeeze(1)
            row_A, stem_A, token_A = row_A[goes_on], stem_A[goes_on], token_A[goes_on]
            if not len(row_A) or place + 1 == rounds:
                break
            token_S, stem_A = _grow(decoder, stem_A, token_A, logits.shape)
            logits = decoder.step(token_S)
        return drawn

    def _decoder(self) -> Decoder:
        if self.by_tree:
            return TreeDecoder(self.causal_lm, plain=self.plain)
        return RereadDecoder(self.causal_lm)

    def _said(self, sampling: Sampling, ids_AT: torch.Tensor) -> torch.Tensor:
        """Whether the answer so far contains a stop string, [A]."""
        texts = (self._text(ids, sampling) for ids in ids_AT.tolist())
        said = [any(stop in text for stop in sampling.stop) for text in texts]
        return torch.tensor(said, device=ids_AT.device)

    def _completion(
        self, ids: list[int], logprobs: list[float], finish: FinishReason, sampling: Sampling
    ) -> Completion:
        text = stopped(self._text(ids, sampling), sampling)
        return Completion(tuple(ids), text, tuple(logprobs), finish)

    def _text(self, ids: Sequence[int], sampling: Sampling) -> str:
        return decode(self.tokenizer, ids, special=not sampling.skip_special_tokens)


def stopped(text: str, sampling: Sampling) -> str:
    """A text up to the stop string that is complete first, with it or without it."""
    ends = [(text.find(stop) + len(stop), stop) for stop in sampling.stop if stop in text]
    if not ends:
        return text
    end, stop = min(ends)
    return text[:end] if sampling.include_stop_str_in_output else text[: end - len(stop)]


def stop_ids(causal_lm: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends an answer: the tokenizer's and the generation config's."""
    configured = causal_lm.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [*ends_of(tokenizer), *listed] if i is not None)


def _grow(
    decoder: Decoder, stem_A: torch.Tensor, token_A: torch.Tensor, shape: torch.Size
) -> tuple[torch.Tensor, torch.Tensor]:
    """The decoder's next tokens and every answer's new stem; `shape` is [stems, vocabulary].

    A stem whose answers drew different tokens becomes several.
    """
    stems, vocabulary = shape
    child_C, child_A = torch.unique(stem_A * vocabulary + token_A, return_inverse=True)
    parent_C, token_C = child_C // vocabulary, child_C % vocabulary
    parted = bool((parent_C[1:] == parent_C[:-1]).any())
    place_C = parent_C
    if parted or len(child_C) < REPACK_BELOW * stems:
        place_C, stems = places(parent_C), len(child_C)
        parent_S = torch.empty_like(parent_C)
        parent_S[place_C] = parent_C
        decoder.arrange(parent_S)
    token_S = token_C.new_zeros(stems)
    token_S[place_C] = token_C
    return token_S, place_C[child_A]


def _indices(prompts: Sequence[tuple[int, ...]], group_size: int) -> Iterator[range]:
    """The completions' numbers for each prompt; a repeated prompt counts on."""
    seen: Counter[tuple[int, ...]] = Counter()
    for prompt in prompts:
        yield range(seen[prompt], seen[prompt] + group_size)
        seen[prompt] += group_size


def _uniforms(seed: int, step: int, prompt: tuple[int, ...], index: int, count: int) -> Uniforms:
    text = f"{seed}/{step}/{index}/{','.join(map(str, prompt))}"
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key)).random(count)
