"""The table of methods: properties of each that are known before anything is loaded.

A preference loss is a function in `losses/preference.py` and a row here. The builders of each
family are in `train/methods/table.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import create_model

from strop.recipe.train.distillation import (
    DistilRecipe,
    GkdRecipe,
    MinillmRecipe,
    OnPolicyDistilRecipe,
)
from strop.recipe.train.offline import (
    CptRecipe,
    PairRecipe,
    RewardModelRecipe,
    SftRecipe,
    UnpairedRecipe,
)
from strop.recipe.train.online import (
    CispoRecipe,
    ClipRecipe,
    DapoRecipe,
    OnlineDpoRecipe,
    PolicyRecipe,
    PpoRecipe,
    RaftRecipe,
    ReinforceRecipe,
    RlooRecipe,
    SapoRecipe,
    SequenceClipRecipe,
)
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
    RobustDpoObjective,
    SimpoObjective,
    SppoObjective,
)
from strop.types import RecordKind

Offline = (
    CptRecipe | SftRecipe | PairRecipe | UnpairedRecipe | RewardModelRecipe | DistilRecipe
    | GkdRecipe
)  # fmt: skip
Online = PolicyRecipe | OnlineDpoRecipe | RaftRecipe
Recipe = Offline | Online

Family = Literal[
    "supervised", "pairs", "unpaired", "reward_model", "distil", "gkd", "policy_gradient",
    "online_dpo", "raft",
]  # fmt: skip
"""A family: methods that are built by the same code."""

LengthRule = Literal["sum", "mean", "option"]
"""How token log-probs become an answer's log-prob; `option`: the objective decides."""


@dataclass(frozen=True, slots=True)
class Method:
    """One row: `Method("sft", SftRecipe, "supervised", "demonstration")`.

    `reference`: the loss compares with the model that the run starts from. `whole_batch`: the loss
    of a record depends on the other records of its step. `displaces`: above a learning rate of 1e-4
    on all parameters, such a loss is known to displace likelihood.
    """

    name: str
    recipe: type[Recipe]
    family: Family
    records: RecordKind
    reference: bool = False
    length: LengthRule = "sum"
    whole_batch: bool = False
    displaces: bool = False

    @property
    def scalar_head(self) -> bool:
        """Whether the network has a scalar head, not a language-model head."""
        return self.family == "reward_model"

    @property
    def importance_ratio(self) -> bool:
        """Whether the loss uses importance ratios of tokens since they were sampled."""
        return self.family == "policy_gradient"

    @property
    def compares_logprobs(self) -> bool:
        """Whether the loss compares log-probs (of two answers, or with older or reference ones), so
        that dropout would add noise to the comparison."""
        return self.family not in ("supervised", "reward_model", "raft", "distil", "gkd")


def _pairs(
    name: str,
    objective: type[AnyPairObjective],
    *,
    reference: bool = True,
    length: LengthRule = "option",
    whole_batch: bool = False,
    displaces: bool = True,
) -> Method:
    """The row of a loss on pairs, with a recipe class that reads only the options of its objective.

    Raises `TypeError` for a row whose length rule would leave options of its objective unread.
    """
    if length != "option" and "ld_alpha" in objective.model_fields:
        raise TypeError(f"{name} has length rule {length!r}, so it would not read ld_alpha")
    recipe = create_model(
        f"{name}_recipe",
        __base__=PairRecipe,
        __module__=__name__,
        method=(Literal[name], ...),  # type: ignore[arg-type]  # no literal to a type checker
        objective=(objective, objective()),
    )
    return Method(name, recipe, "pairs", "preference", reference, length, whole_batch, displaces)


def _policy(recipe: type[PolicyRecipe]) -> Iterator[Method]:
    """The policy gradients that a recipe class names."""
    for name in get_args(recipe.model_fields["method"].annotation):
        yield Method(name, recipe, "policy_gradient", "task")


ROWS = (
    Method("cpt", CptRecipe, "supervised", "document"),
    Method("sft", SftRecipe, "supervised", "demonstration"),
    Method("dft", SftRecipe, "supervised", "demonstration"),
    _pairs("dpo", DpoObjective),
    _pairs("robust_dpo", RobustDpoObjective),
    _pairs("ipo", IpoObjective, length="mean"),
    _pairs("exo_pair", ExoObjective),
    _pairs("aot", AotObjective, whole_batch=True),
    _pairs("aot_unpaired", AotObjective, whole_batch=True),
    _pairs("discopop", DiscopopObjective),
    _pairs("dpop", DpopObjective),
    _pairs("sppo_hard", SppoObjective),
    _pairs("mpo", MpoObjective),
    _pairs("simpo", SimpoObjective, reference=False, length="mean"),
    _pairs("orpo", OrpoObjective, reference=False, length="mean", displaces=False),
    _pairs("cpo", CpoObjective, reference=False, length="sum"),
    _pairs("hinge", PairObjective),
    _pairs("nca_pair", PairObjective),
    _pairs("bco_pair", PairObjective),
    _pairs("apo_zero", PairObjective),
    _pairs("apo_down", PairObjective),
    Method("kto", UnpairedRecipe, "unpaired", "feedback", True, whole_batch=True, displaces=True),
    Method("apo_zero_unpaired", UnpairedRecipe, "unpaired", "feedback", True, displaces=True),
    Method("reward_model", RewardModelRecipe, "reward_model", "preference"),
    Method("distil", DistilRecipe, "distil", "demonstration"),
    Method("gkd", GkdRecipe, "gkd", "demonstration"),
    *_policy(ClipRecipe),
    *_policy(DapoRecipe),
    *_policy(SequenceClipRecipe),
    *_policy(CispoRecipe),
    *_policy(SapoRecipe),
    *_policy(RlooRecipe),
    *_policy(ReinforceRecipe),
    *_policy(PpoRecipe),
    *_policy(OnPolicyDistilRecipe),
    *_policy(MinillmRecipe),
    Method("online_dpo", OnlineDpoRecipe, "online_dpo", "task", True, displaces=True),
    Method("raft", RaftRecipe, "raft", "task"),
)

METHODS: dict[str, Method] = {row.name: row for row in ROWS}

# a recipe goes from process to process by the name of its class
globals().update({row.recipe.__name__: row.recipe for row in ROWS})


def method_of(recipe: Recipe) -> Method:
    """The row of a recipe's method."""
    return METHODS[recipe.method]
