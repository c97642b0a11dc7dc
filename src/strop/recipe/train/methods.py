"""Every method by name, with the recipe that it reads and the records that it learns from."""

from __future__ import annotations

from typing import get_args

from strop.recipe.train.offline import (
    AotRecipe,
    CpoRecipe,
    CptRecipe,
    DiscopopRecipe,
    DpopRecipe,
    DpoRecipe,
    ExoRecipe,
    IpoRecipe,
    MpoRecipe,
    OrpoRecipe,
    PairRecipe,
    PlainPairRecipe,
    RewardModelRecipe,
    RobustDpoRecipe,
    SftRecipe,
    SimpoRecipe,
    SppoRecipe,
    UnpairedRecipe,
)
from strop.recipe.train.online import (
    BestOfRecipe,
    CispoRecipe,
    ClipRecipe,
    DapoRecipe,
    OwnPairsRecipe,
    PolicyRecipe,
    PpoRecipe,
    ReinforceRecipe,
    RlooRecipe,
    SapoRecipe,
    SequenceClipRecipe,
)

Offline = CptRecipe | SftRecipe | PairRecipe | UnpairedRecipe | RewardModelRecipe
Online = PolicyRecipe | OwnPairsRecipe | BestOfRecipe
Recipe = Offline | Online

CLASSES: tuple[type[Recipe], ...] = (
    CptRecipe, SftRecipe, DpoRecipe, RobustDpoRecipe, IpoRecipe, ExoRecipe, AotRecipe,
    DiscopopRecipe, DpopRecipe, SppoRecipe, MpoRecipe, SimpoRecipe, OrpoRecipe, CpoRecipe,
    PlainPairRecipe, UnpairedRecipe, RewardModelRecipe, ClipRecipe, DapoRecipe, SequenceClipRecipe,
    CispoRecipe, SapoRecipe, RlooRecipe, ReinforceRecipe, PpoRecipe, OwnPairsRecipe, BestOfRecipe,
)  # fmt: skip

METHODS: dict[str, type[Recipe]] = {
    name: cls for cls in CLASSES for name in get_args(cls.model_fields["method"].annotation)
}


def record_kind(recipe: type[Recipe]) -> str:
    """The kind of record (`data.records.FORMS`) that a recipe class learns from."""
    return next(kind for family, kind in KINDS.items() if issubclass(recipe, family))


KINDS: dict[type[Recipe], str] = {
    CptRecipe: "document",
    SftRecipe: "demonstration",
    PairRecipe: "preference",
    RewardModelRecipe: "preference",
    UnpairedRecipe: "feedback",
    PolicyRecipe: "task",
    OwnPairsRecipe: "task",
    BestOfRecipe: "task",
}
