"""What a sampler is, and how a token is drawn from logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from strop.types import Completion


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw: `Sampling(temperature=1.0, max_tokens=64)`; temperature 0 is greedy.

    Truncations apply after temperature, in this order: `top_k` (0 is off), `top_p` (1 is off),
    `min_p` (0 is off; relative to the likeliest token).
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()


class Sampler(Protocol):
    """Completions for prompts: the embedded sampler, a vLLM engine or a server."""

    def sample(
        self,
        prompts: Sequence[tuple[int, ...]],
        *,
        group_size: int,
        sampling: Sampling,
        seed: int,
        step: int,
    ) -> list[tuple[Completion, ...]]:
        """`group_size` completions per prompt, in the order of `prompts`."""


def sampling_logprobs(logits_RV: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Log-probs of the distribution that tokens are drawn from, float32 [R, V].

    Tokens cut by top-k, top-p or min-p have log-prob -inf; greedy puts all mass on the argmax
    (the first of equals).
    """
    logits_RV = logits_RV.float()
    if sampling.temperature == 0:
        best_R1 = logits_RV.argmax(-1, keepdim=True)
        return torch.full_like(logits_RV, float("-inf")).scatter(-1, best_R1, 0.0)
    logprobs_RV = torch.log_softmax(logits_RV / sampling.temperature, -1)
    cut_RV = torch.zeros_like(logprobs_RV, dtype=torch.bool)
    if 0 < sampling.top_k < logprobs_RV.shape[-1]:
        least_R1 = logprobs_RV.topk(sampling.top_k).values[:, -1:]
        cut_RV = cut_RV | (logprobs_RV < least_R1)
    if sampling.top_p < 1:
        kept_RV = torch.log_softmax(logprobs_RV.masked_fill(cut_RV, float("-inf")), -1)
        sorted_RV, order_RV = kept_RV.sort(descending=True, stable=True)
        before_RV = sorted_RV.exp().cumsum(-1) - sorted_RV.exp()
        cut_RV = cut_RV | torch.zeros_like(cut_RV).scatter(
            -1, order_RV, before_RV >= sampling.top_p
        )
    if sampling.min_p > 0:
        floor = torch.log(torch.tensor(sampling.min_p))
        cut_RV = cut_RV | (logprobs_RV < logprobs_RV.max(-1, keepdim=True).values + floor)
    if not cut_RV.any():
        return logprobs_RV
    return torch.log_softmax(logprobs_RV.masked_fill(cut_RV, float("-inf")), -1)


def draw(logprobs_RV: torch.Tensor, uniform_R: torch.Tensor) -> torch.Tensor:
    """Inverse-CDF draw: one token per row from one uniform number in [0, 1) per row."""
    cdf_RV = logprobs_RV.exp().cumsum(-1)
    threshold_R1 = (uniform_R.to(cdf_RV.dtype) * cdf_RV[:, -1])[:, None]
    token_R = torch.searchsorted(cdf_RV, threshold_R1, right=True).squeeze(1)
    # rounding can push the threshold to the very end: fall back to the last possible token
    possible_RV = logprobs_RV > float("-inf")
    last_R = logprobs_RV.shape[-1] - 1 - possible_RV.flip(-1).int().argmax(-1)
    return torch.minimum(token_R, last_R)
