"""Recipes that learn from a teacher's log-probs, with the objectives that they read."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from strop.recipe.base import Strict
from strop.recipe.train.alarm import DistilAlarms, DistilSampleAlarms, GkdAlarms
from strop.recipe.train.offline import OfflineRecipe
from strop.recipe.train.online import PolicyRecipe
from strop.recipe.train.policy import ClipObjective, RepeatedObjective
from strop.recipe.train.reward import OptionalRewards
from strop.recipe.train.rollout import MinillmRollout, RolloutRecipe
from strop.recipe.train.teacher import AnyTeacher, LivingTeacher, Teacher

DivergenceName = Literal[
    "forward_kl", "reverse_kl", "generalized_js", "skewed_forward_kl", "skewed_reverse_kl"
]

READS = {"generalized_js": "beta", "skewed_forward_kl": "alpha", "skewed_reverse_kl": "alpha"}
"""The option that a divergence reads."""


class DistilObjective(Strict):
    """How far the student may be from the teacher, token by token, on given answers.

    `beta` belongs to `generalized_js` (0.5 unless set), `alpha` to the skewed divergences (0.1).
    `temperature` divides the logits of both, and the loss is not multiplied by its square. With
    `top_k` the teacher's k likeliest tokens count one by one and all others together; its log-probs
    are then computed once, before step 1, and kept beside the run.
    """

    divergence: DivergenceName = "forward_kl"
    beta: float | None = Field(None, ge=0, le=1)
    alpha: float | None = Field(None, ge=0, le=1)
    temperature: float = Field(1.0, gt=0)
    top_k: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _options_are_read(self) -> Self:
        for name in ("beta", "alpha"):
            if getattr(self, name) is not None and READS.get(self.divergence) != name:
                homes = [one for one, option in READS.items() if option == name]
                raise ValueError(
                    f"{self.divergence} does not read {name}: drop it, or set divergence to "
                    f"{' or '.join(homes)}"
                )
        return self

    @model_validator(mode="after")
    def _lumps_have_no_temperature(self) -> Self:
        if self.top_k is not None and self.temperature != 1:
            raise ValueError(
                "top_k lumps all other tokens into one, which no temperature can be taken of: set "
                "temperature to 1, or drop top_k"
            )
        return self

    def loss_options(self) -> dict[str, float]:
        """The argument of the divergence, where it is set."""
        name = READS.get(self.divergence, "")
        value: float | None = getattr(self, name, None)
        return {} if value is None else {name: value}


class GkdObjective(Strict):
    """GKD: `beta` of the generalised Jensen-Shannon divergence (0 is the forward KL, 1 the reverse
    one), and the share of records whose answer the student writes itself (the paper's lambda).
    `temperature` divides the logits of both in the loss; own samples are drawn at
    `rollout.temperature`."""

    beta: float = Field(0.5, ge=0, le=1)
    own_samples: float = Field(0.5, ge=0, le=1)
    temperature: float = Field(1.0, gt=0)


class OwnSamples(Strict):
    """How the student's own answers are drawn."""

    temperature: float = Field(1.0, ge=0)
    max_tokens: int = Field(256, ge=1)
    stop: list[str] = Field(default_factory=list)


class DistilRecipe(OfflineRecipe):
    """Distillation on demonstrations: every supervised token of a given answer."""

    method: Literal["distil"]
    teacher: AnyTeacher
    objective: DistilObjective = DistilObjective()
    alarms: DistilAlarms = DistilAlarms()

    @property
    def taught_by(self) -> Teacher | None:
        return self.teacher

    @model_validator(mode="after")
    def _keeps_what_stands_still(self) -> Self:
        own = getattr(self.teacher, "own", None)
        if own == "current" and self.objective.top_k is not None:
            raise ValueError(
                "top_k keeps the teacher's log-probs for the whole run, and {own: current} changes "
                "with every step: set own: start, or drop top_k"
            )
        recorded = getattr(self.teacher, "recorded", None)
        if recorded is not None and self.objective.top_k is not None:
            raise ValueError(
                "what a teacher recorded has as many tokens as it was recorded with: drop top_k"
            )
        if recorded is not None and self.objective.temperature != 1:
            raise ValueError(
                "what a teacher recorded is at temperature 1, and all tokens beyond its top_k are "
                "one: set temperature to 1, or name the teacher itself"
            )
        return self


class GkdRecipe(OfflineRecipe):
    """Generalised knowledge distillation: demonstrations, and for a share of them the student's own
    answers to the same prompts."""

    method: Literal["gkd"]
    teacher: LivingTeacher
    objective: GkdObjective = GkdObjective()
    rollout: OwnSamples = OwnSamples()
    alarms: GkdAlarms = GkdAlarms()

    @property
    def taught_by(self) -> Teacher | None:
        return self.teacher

    @property
    def answer_tokens(self) -> int:
        return self.rollout.max_tokens if self.objective.own_samples > 0 else 0

    @model_validator(mode="after")
    def _samples_are_drawn(self) -> Self:
        if self.objective.own_samples == 0 and self.rollout != OwnSamples():
            raise ValueError(
                "objective.own_samples is 0, so nothing is sampled and rollout is not read: drop it"
            )
        return self


class OnPolicyDistilObjective(ClipObjective):
    """On-policy distillation. `discount` lets a token answer for those after it (0: for itself
    alone, 1: for all); `teacher_weight` weighs the teacher beside a reward's advantage."""

    discount: float = Field(0.0, ge=0, le=1)
    teacher_weight: float = Field(1.0, gt=0)


class MinillmObjective(RepeatedObjective):
    """MiniLLM. `length_normalized` takes the mean of what follows a token in place of its sum;
    `mix` is the teacher's share in the distribution that answers are drawn from (alpha), 0 draws
    from the student alone."""

    epsilon_low: float | None = Field(None, gt=0, lt=1)
    epsilon_high: float | None = Field(None, gt=0)
    length_normalized: bool = True
    mix: float = Field(0.2, ge=0, lt=1)


class TaughtRecipe(PolicyRecipe):
    """Policy gradients on the student's own answers, whose tokens a teacher judges."""

    teacher: LivingTeacher
    reward: OptionalRewards = Field(default_factory=list)
    alarms: DistilSampleAlarms = DistilSampleAlarms()

    @property
    def taught_by(self) -> Teacher | None:
        return self.teacher


class OnPolicyDistilRecipe(TaughtRecipe):
    """On-policy distillation; with `reward`, beside the reward's own advantage."""

    method: Literal["on_policy_distil"]
    objective: OnPolicyDistilObjective = OnPolicyDistilObjective()
    rollout: RolloutRecipe = RolloutRecipe()

    @model_validator(mode="after")
    def _weighs_two_things(self) -> Self:
        if not self.reward and self.objective.teacher_weight != 1:
            raise ValueError(
                "teacher_weight weighs the teacher beside a reward, and there is none: drop it, or "
                "add reward"
            )
        return self


class MinillmRecipe(TaughtRecipe):
    """MiniLLM: the reverse KL of whole answers, with a policy gradient of lower variance."""

    method: Literal["minillm"]
    objective: MinillmObjective = MinillmObjective()
    rollout: MinillmRollout = MinillmRollout()

    @property
    def sampler_mix(self) -> float:
        return self.objective.mix

    @model_validator(mode="after")
    def _reads_no_reward(self) -> Self:
        if self.reward:
            raise ValueError(
                "minillm learns from its teacher alone: drop reward, or set method: "
                "on_policy_distil, which adds the teacher to a reward"
            )
        return self
