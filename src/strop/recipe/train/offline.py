"""Recipes that learn from records, one class a method, so that each reads its own options only."""

from __future__ import annotations

from typing import Literal

from strop.recipe.train.alarm import CommonAlarms, PairAlarms
from strop.recipe.train.data import EvalDuring
from strop.recipe.train.preference import (
    AnyPairObjective,
    AotObjective,
    CpoObjective,
    DiscopopObjective,
    DpoObjective,
    DpopObjective,
    ExoObjective,
    IpoObjective,
    MpoObjective,
    OrpoObjective,
    PairObjective,
    RewardModelObjective,
    RobustDpoObjective,
    SimpoObjective,
    SppoObjective,
    UnpairedObjective,
)
from strop.recipe.train.run import TrainRecipe


class OfflineRecipe(TrainRecipe):
    """Learning from records, with a look at held-out ones every few steps."""

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
    """What all methods on `{"prompt", "chosen", "rejected"}` records have."""

    objective: AnyPairObjective
    alarms: PairAlarms = PairAlarms()


class PlainPairRecipe(PairRecipe):
    """Losses without an option of their own."""

    method: Literal["hinge", "nca_pair", "bco_pair", "apo_zero", "apo_down"]
    objective: PairObjective = PairObjective()


class DpoRecipe(PairRecipe):
    method: Literal["dpo"]
    objective: DpoObjective = DpoObjective()


class RobustDpoRecipe(PairRecipe):
    method: Literal["robust_dpo"]
    objective: RobustDpoObjective = RobustDpoObjective()


class IpoRecipe(PairRecipe):
    method: Literal["ipo"]
    objective: IpoObjective = IpoObjective()


class ExoRecipe(PairRecipe):
    method: Literal["exo_pair"]
    objective: ExoObjective = ExoObjective()


class AotRecipe(PairRecipe):
    method: Literal["aot", "aot_unpaired"]
    objective: AotObjective = AotObjective()


class DiscopopRecipe(PairRecipe):
    method: Literal["discopop"]
    objective: DiscopopObjective = DiscopopObjective()


class DpopRecipe(PairRecipe):
    method: Literal["dpop"]
    objective: DpopObjective = DpopObjective()


class SppoRecipe(PairRecipe):
    method: Literal["sppo_hard"]
    objective: SppoObjective = SppoObjective()


class MpoRecipe(PairRecipe):
    method: Literal["mpo"]
    objective: MpoObjective = MpoObjective()


class SimpoRecipe(PairRecipe):
    method: Literal["simpo"]
    objective: SimpoObjective = SimpoObjective()


class OrpoRecipe(PairRecipe):
    method: Literal["orpo"]
    objective: OrpoObjective = OrpoObjective()


class CpoRecipe(PairRecipe):
    method: Literal["cpo"]
    objective: CpoObjective = CpoObjective()


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
