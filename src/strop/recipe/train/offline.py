"""Recipes that train on records; those on pairs are made in the table of methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from strop.recipe.train.alarm import CommonAlarms, PairAlarms
from strop.recipe.train.data import EvalDuring
from strop.recipe.train.preference import (
    AnyPairObjective,
    DpoObjective,
    RewardModelObjective,
    UnpairedObjective,
)
from strop.recipe.train.run import TrainRecipe


class OfflineRecipe(TrainRecipe):
    """Training on records, with an evaluation of held-out ones every few steps."""

    eval: EvalDuring | None = None


class CptRecipe(OfflineRecipe):
    """Continued pretraining on `{"text"}` records."""

    method: Literal["cpt"]
    alarms: CommonAlarms = CommonAlarms()


class SftRecipe(OfflineRecipe):
    """Supervised fine-tuning on `{"prompt", "completion"}` or `{"messages"}` records: maximum
    likelihood (`sft`) or dynamic fine-tuning (`dft`)."""

    method: Literal["sft", "dft"]
    alarms: CommonAlarms = CommonAlarms()


class PairRecipe(OfflineRecipe):
    """Methods on `{"prompt", "chosen", "rejected"}` records; each has an objective of its own, so
    that it reads its own options only."""

    objective: AnyPairObjective
    alarms: PairAlarms = PairAlarms()

    @property
    def given_loss(self) -> Callable[..., Any] | None:
        return self.objective.given if isinstance(self.objective, DpoObjective) else None


class UnpairedRecipe(OfflineRecipe):
    """Methods on `{"prompt", "completion", "label"}` records: thumbs up and thumbs down."""

    method: Literal["kto", "apo_zero_unpaired"]
    objective: UnpairedObjective = UnpairedObjective()
    alarms: PairAlarms = PairAlarms()


class RewardModelRecipe(OfflineRecipe):
    """A scalar head that scores chosen above rejected, saved as a sequence classifier."""

    method: Literal["reward_model"]
    objective: RewardModelObjective = RewardModelObjective()
    alarms: CommonAlarms = CommonAlarms()
