"""What changes logits before the temperature: biases, penalties and grammars."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from strop.engines.engine import Sampling
from strop.engines.local.constrained import Matcher, forbid


class Processing:
    """Changes the logits of answers that have one sampling, in vLLM's order: bias, repetition,
    frequency and presence penalty, grammar. `prompts` are those of the answers, and `matchers`
    where their grammar stands."""

    def __init__(
        self,
        sampling: Sampling,
        prompts: Sequence[tuple[int, ...]],
        matchers: Sequence[Matcher],
        device: torch.device,
    ) -> None:
        self.sampling, self.matchers = sampling, matchers
        bias = sampling.logit_bias
        self._biased_B = torch.tensor([token for token, _ in bias], device=device)
        self._bias_B = torch.tensor([more for _, more in bias], device=device)
        self._prompts_NL = torch.empty(len(prompts), 0, dtype=torch.long, device=device)
        if sampling.repetition_penalty != 1:
            distinct = [torch.tensor(sorted(set(prompt)), device=device) for prompt in prompts]
            # a row is filled up with a token that it has: what is said twice is changed once
            first = torch.stack([own[0] for own in distinct])[:, None]
            padded = pad_sequence(distinct, batch_first=True, padding_value=-1)
            self._prompts_NL = torch.where(padded < 0, first, padded)

    def __call__(
        self, logits_NV: torch.Tensor, ids_NT: torch.Tensor, place_N: torch.Tensor
    ) -> torch.Tensor:
        """The float32 logits, [N, V], which are overwritten; `ids_NT[n, :place_N[n]]` is answer n
        so far."""
        how = self.sampling
        if how.logit_bias:
            logits_NV.index_add_(1, self._biased_B, self._bias_B.expand(len(logits_NV), -1))
        if how.repetition_penalty != 1:
            # what an answer is filled up with is seen anyway
            own_NT = torch.where(self._counts(ids_NT, place_N), ids_NT, self._prompts_NL[:, :1])
            seen_NS = torch.cat([self._prompts_NL, own_NT], 1)
            old_NS, penalty = logits_NV.gather(1, seen_NS), how.repetition_penalty
            new_NS = torch.where(old_NS > 0, old_NS / penalty, old_NS * penalty)
            logits_NV.scatter_(1, seen_NS, new_NS)
        if how.frequency_penalty or how.presence_penalty:
            counts_NT = self._counts(ids_NT, place_N)
            said_NT = torch.where(counts_NT, ids_NT, ids_NT[:, :1])
            logits_NV.scatter_add_(1, said_NT, -how.frequency_penalty * counts_NT.float())
            less_N1 = how.presence_penalty * (place_N > 0)[:, None]
            logits_NV.scatter_(1, said_NT, logits_NV.gather(1, said_NT) - less_N1)
        if self.matchers:
            forbid(self.matchers, logits_NV)
        return logits_NV

    @staticmethod
    def _counts(ids_NT: torch.Tensor, place_N: torch.Tensor) -> torch.Tensor:
        """Which tokens are there yet, [N, T]."""
        return torch.arange(ids_NT.shape[1], device=place_N.device) < place_N[:, None]
