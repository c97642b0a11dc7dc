"""Gate policies: the demands on a candidate."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from strop.recipe.base import LocalPath, Strict
from strop.recipe.notify import GateNotices


class Demand(Strict):
    """A demand on a score. `scale` is the score's lowest and highest value (null for no bound), if
    the records do not declare it: without a scale, scores that look like two scales are refused."""

    score: str
    scale: tuple[float | None, float | None] | None = None

    @model_validator(mode="after")
    def _scale_has_two_ends(self) -> Self:
        low, high = self.scale or (None, None)
        if low is not None and high is not None and not low < high:
            raise ValueError(f"scale [{low:g}, {high:g}] leaves one value")
        return self


class Target(Demand):
    """A score that has to rise: lower 95 % bound of the paired difference above `min_gain`."""

    min_gain: float = Field(0.0, ge=0)


class Guardrail(Demand):
    """A score that must not fall: lower 95 % bound of the difference above `-margin`."""

    margin: float = Field(0.02, gt=0)


class Band(Demand):
    """A figure that must stay about the same: 95 % interval of the ratio of means, candidate to
    base, between `low` and `high`. For lengths and other drift figures (`drift/<task>/length`)."""

    low: float = Field(0.8, gt=0, lt=1)
    high: float = Field(1.25, gt=1)


class GateRules(Strict):
    """The demands that a candidate has to meet before it may be promoted. `name` is shown on the
    verdict's page.

    `noise` are evals of models that differ from the base only by chance (the same recipe with other
    seeds, or the base itself again): their largest difference is the noise floor, and a change
    below it counts neither as a gain nor as a loss. `max_unscored` is the share of items that may
    lack a score on a side; they are counted against the candidate. The gate refuses a candidate
    that was trained on eval items unless `refuse_overlap` is off, and a score by a judge without a
    card unless `uncalibrated` says why it may decide. `notify` are those who are told the verdict.
    """

    name: str | None = None
    targets: list[Target] = Field(default_factory=list)
    guardrails: list[Guardrail] = Field(default_factory=list)
    bands: list[Band] = Field(default_factory=list)
    alpha: float = Field(0.05, gt=0, lt=0.5)
    noise: list[LocalPath] = Field(default_factory=list)
    max_unscored: float = Field(0.0, ge=0, lt=0.5)
    refuse_overlap: bool = True
    uncalibrated: str | None = Field(None, min_length=1)
    notify: GateNotices = Field(default_factory=list)

    @model_validator(mode="after")
    def _demands_something_once(self) -> Self:
        if not (self.targets or self.guardrails or self.bands):
            raise ValueError("the policy demands nothing: add a target or a guardrail")
        for kind in (self.targets, self.guardrails, self.bands):
            names = [demand.score for demand in kind]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"demanded twice: {', '.join(twice)}")
        return self
