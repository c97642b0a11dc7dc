"""Answers drawn from two models together, token by token: a student mixed with its teacher.

MiniLLM's teacher-mixed sampling (Gu et al. 2023, arXiv 2306.08543, equation 4):

    p~(y_t) = share p_teacher(y_t) + (1 - share) p_student(y_t)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import torch

from strop.engines.engine import Request
from strop.engines.local.engine import LocalEngine
from strop.engines.local.sampler import LocalSampler
from strop.model.decode import Decoder
from strop.model.network import Policy
from strop.model.prefixes import Prefixes
from strop.model.teacher import LocalTeacher, StandIn
from strop.types import Completion


class MixedDecoder:
    """Two decoders that read the same tokens. What it gives as logits is `temperature` times the
    log-probs of the mixture, both being taken at that temperature. The teacher's decoder steps
    within `weights()`."""

    def __init__(
        self,
        student: Decoder,
        teacher: Decoder,
        weights: StandIn,
        *,
        share: float,
        temperature: float,
    ) -> None:
        self.student, self.teacher, self.weights = student, teacher, weights
        self.share, self.temperature = share, temperature

    def join(
        self, prompts: Sequence[tuple[int, ...]], room: int, *, whole: bool = False, salt: str = ""
    ) -> torch.Tensor:
        own = self.student.join(prompts, room, whole=whole, salt=salt)
        with self.weights():
            other = self.teacher.join(prompts, room, salt=salt)
        return self._mixed(own, other)

    def step(self, tokens_R: torch.Tensor) -> torch.Tensor:
        own = self.student.step(tokens_R)
        with self.weights():
            other = self.teacher.step(tokens_R)
        return self._mixed(own, other)

    def arrange(self, parent_R: torch.Tensor) -> None:
        self.student.arrange(parent_R)
        self.teacher.arrange(parent_R)

    def of_prompts(self, seen_T: torch.Tensor) -> list[torch.Tensor]:
        return self.student.of_prompts(seen_T)

    def of_tokens(self, seen_T: torch.Tensor) -> torch.Tensor:
        return self.student.of_tokens(seen_T)

    def _mixed(self, own_RV: torch.Tensor, other_RV: torch.Tensor) -> torch.Tensor:
        return self.temperature * mixture(
            own_RV / self.temperature, other_RV / self.temperature, self.share
        )


def mixture(own_RV: torch.Tensor, other_RV: torch.Tensor, share: float) -> torch.Tensor:
    """Log-probs of share softmax(other) + (1 - share) softmax(own), float32, as wide as `own`;
    tokens beyond either width have none of it (heads of one tokenizer may be padded)."""
    width = min(own_RV.shape[-1], other_RV.shape[-1])
    own, other = (torch.log_softmax(x[:, :width].float(), -1) for x in (own_RV, other_RV))
    mixed = torch.logaddexp(own + math.log1p(-share), other.to(own.device) + math.log(share))
    beyond = own_RV.shape[-1] - width
    return torch.nn.functional.pad(mixed, (0, beyond), value=float("-inf"))


class MixedSampler(LocalSampler):
    """A student that is decoded beside its teacher."""

    def __init__(
        self, policy: Policy, teacher: LocalTeacher, share: float, temperature: float
    ) -> None:
        super().__init__(policy)
        self.beside, self.weights = LocalSampler(teacher.policy), teacher.weights
        self.share, self.temperature = share, temperature

    def decoder(self, *, shared: bool, prefixes: Prefixes | None, weights: str) -> Decoder:
        own = super().decoder(shared=shared, prefixes=prefixes, weights=weights)
        together = shared and self.beside.by_tree
        teacher = self.beside.decoder(shared=together, prefixes=None, weights=weights)
        how = {"share": self.share, "temperature": self.temperature}
        return MixedDecoder(own, teacher, self.weights, **how)


class Mixing(LocalEngine):
    """A policy all of whose answers are drawn from the mixture with its teacher, at one
    `temperature`. Their log-probs are the mixture's, so that policy / sampler is the weight that
    corrects for it (equation 5)."""

    def __init__(
        self, path: str, policy: Policy, teacher: LocalTeacher, *, share: float, temperature: float
    ) -> None:
        super().__init__(path, policy)
        self.teacher, self.share, self.temperature = teacher, share, temperature

    @cached_property
    def _sampler(self) -> LocalSampler:
        return MixedSampler(self.policy(), self.teacher, self.share, self.temperature)


class MixedEngine(LocalEngine):
    """The policy that is trained, whose training samples are drawn by `mixing`; all else that is
    asked of it (held-out tasks, the check before step 1) the policy answers alone."""

    def __init__(self, mixing: Mixing) -> None:
        super().__init__(mixing.path, mixing.policy())
        self.mixing = mixing

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        if any(request.key.stream == "training" for request in requests):
            return self.mixing.generate(requests)
        return super().generate(requests)

    def publish(self, weights: Mapping[str, torch.Tensor]) -> int:
        self.mixing.version = super().publish(weights)
        return self.version
