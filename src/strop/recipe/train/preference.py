"""Objectives of methods that train on labelled answers, each with only the options that it
reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from strop.recipe.base import Strict

Mixable = Literal["dpo", "hinge", "nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down"]
"""Losses that an `mpo` mixture may hold: those that need no option but beta."""


ALPHA = 0.5
"""Default of the alpha divergence: half way between the two KLs."""


class PairObjective(Strict):
    """Options that every loss over log-ratios can be combined with.

    `nll_weight` adds that many times the mean token NLL of the chosen answer (RPO); `wpo` weighs
    pairs by how likely the policy is to write them (WPO); an answer's log-prob is the sum over its
    tokens, their mean (`length_normalized`), or counts tokens beyond the shorter answer's length
    `ld_alpha` times (LD-DPO).
    """

    beta: float = Field(0.1, gt=0)
    nll_weight: float = Field(0.0, ge=0)
    length_normalized: bool = False
    ld_alpha: float = Field(1.0, ge=0, le=1)
    wpo: bool = False

    @model_validator(mode="after")
    def _one_length_rule(self) -> Self:
        if self.length_normalized and self.ld_alpha < 1:
            raise ValueError(
                "length_normalized and ld_alpha both change how length counts: choose one"
            )
        return self


class DpoObjective(PairObjective):
    """DPO; `label_smoothing` is cDPO, `divergence` replaces the reverse KL (f-DPO).

    A loss that is given from Python (`strop.train(recipe, loss=mine)`) replaces it; it is stored as
    `given`, outside the recipe's values.
    """

    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    divergence: Literal["reverse_kl", "forward_kl", "js", "alpha"] = "reverse_kl"
    alpha: float = Field(ALPHA, gt=0, lt=1)
    _given: Callable[..., Any] | None = PrivateAttr(None)

    @property
    def given(self) -> Callable[..., Any] | None:
        """The user's own loss of a pair."""
        return self._given

    def with_loss(self, function: Callable[..., Any]) -> Self:
        """This objective with a loss of the user's own."""
        copy = self.model_copy()
        copy._given = function
        return copy

    @model_validator(mode="after")
    def _options_are_read(self) -> Self:
        if self.divergence != "reverse_kl" and self.label_smoothing > 0:
            raise ValueError(f"label_smoothing is not read with divergence {self.divergence}")
        if self.divergence != "alpha" and self.alpha != ALPHA:
            raise ValueError("alpha is only read with divergence: alpha")
        return self


class RobustDpoObjective(PairObjective):
    """Robust DPO; `label_smoothing` is the share of labels believed to be flipped."""

    label_smoothing: float = Field(0.1, gt=0, lt=0.5)


class IpoObjective(Strict):
    """IPO. Its target 1/(2 beta) is per token, so log-probs are always length-averaged."""

    beta: float = Field(0.1, gt=0)
    nll_weight: float = Field(0.0, ge=0)
    length_normalized: bool = True

    @model_validator(mode="after")
    def _averages(self) -> Self:
        if not self.length_normalized:
            raise ValueError(
                "ipo with summed log-probs chases a target that grows shorter answers and "
                "vanishing updates: drop length_normalized (ipo averages over tokens)"
            )
        return self


class ExoObjective(PairObjective):
    """EXO; `label_smoothing` keeps its target distribution away from certainty."""

    label_smoothing: float = Field(1e-3, gt=0, lt=0.5)


class AotObjective(PairObjective):
    """AOT: compares the sorted batch, so `run.batch_size` is part of the method."""

    label_smoothing: float = Field(0.0, ge=0, lt=0.5)

    @model_validator(mode="after")
    def _no_pair_weights(self) -> Self:
        if self.wpo:
            raise ValueError("aot compares sorted answers, not pairs, so wpo has no pair to weigh")
        return self


class DiscopopObjective(PairObjective):
    """DiscoPOP; `temperature` is that of the blend between its two losses."""

    beta: float = Field(0.05, gt=0)
    temperature: float = Field(0.05, gt=0)


class DpopObjective(PairObjective):
    """DPO-Positive; `penalty` weighs how far the chosen answer fell below the reference."""

    beta: float = Field(0.3, gt=0)
    penalty: float = Field(50.0, ge=0)


class SppoObjective(PairObjective):
    """SPPO with hard labels; its targets are +-1/(2 beta), so the paper's beta is small."""

    beta: float = Field(1e-3, gt=0)


class MpoObjective(PairObjective):
    """A weighted sum of losses: `losses: {dpo: 0.8, bco_pair: 0.2}` with an NLL term."""

    nll_weight: float = Field(1.0, ge=0)
    losses: dict[Mixable, float] = Field({"dpo": 0.8, "bco_pair": 0.2}, min_length=2)

    @model_validator(mode="after")
    def _weights_count(self) -> Self:
        if any(weight <= 0 for weight in self.losses.values()):
            raise ValueError("every weight in losses has to be above 0: drop losses not wanted")
        return self


class SimpoObjective(Strict):
    """SimPO: mean log-probs and a target margin `gamma`, no reference."""

    beta: float = Field(2.0, gt=0)
    gamma: float = Field(1.0, ge=0)
    nll_weight: float = Field(0.0, ge=0)


class OrpoObjective(Strict):
    """ORPO: NLL of the chosen answer plus `beta` times the odds-ratio term, no reference."""

    beta: float = Field(0.1, gt=0)


class CpoObjective(Strict):
    """CPO: a reference-free DPO with an NLL term."""

    beta: float = Field(0.1, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    nll_weight: float = Field(1.0, ge=0)


class UnpairedObjective(Strict):
    """KTO and unpaired APO-zero: weights of thumbs up and thumbs down."""

    beta: float = Field(0.1, gt=0)
    desirable_weight: float = Field(1.0, gt=0)
    undesirable_weight: float = Field(1.0, gt=0)


class RewardModelObjective(Strict):
    """Bradley-Terry; `margin` names a column with how much better the chosen answer is;
    `centering` pulls the two scores of a pair towards a mean of 0 (0.01 is usual)."""

    margin: str | None = None
    centering: float = Field(0.0, ge=0)


AnyPairObjective = (
    DpoObjective | RobustDpoObjective | IpoObjective | ExoObjective | AotObjective
    | DiscopopObjective | DpopObjective | MpoObjective | SimpoObjective | OrpoObjective
    | CpoObjective | PairObjective
)  # fmt: skip
