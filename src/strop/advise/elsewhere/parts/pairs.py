"""Losses on pairs by the names that TRL gave them, which others took over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from strop.advise.elsewhere.carried import Keys

TRL_LOSS: Mapping[str, str] = {
    "dpo": "sigmoid",
    "robust_dpo": "robust",
    "ipo": "ipo",
    "hinge": "hinge",
    "exo_pair": "exo_pair",
    "nca_pair": "nca_pair",
    "bco_pair": "bco_pair",
    "sppo_hard": "sppo_hard",
    "aot": "aot",
    "aot_unpaired": "aot_unpaired",
    "apo_zero": "apo_zero",
    "apo_down": "apo_down",
    "discopop": "discopop",
}
"""The method and the name of its loss in `DPOConfig.loss_type` of TRL."""

SMOOTHED = ("robust_dpo", "exo_pair", "aot", "aot_unpaired")
"""Methods whose label smoothing TRL reads."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """A sum of losses: `Mixture(("sigmoid", "sft"), (1.0, 0.5), 0.0)` is DPO with half an NLL
    term."""

    losses: Sequence[str]
    weights: Sequence[float]
    smoothing: float


def mixture_of(keys: Keys) -> Mixture:
    """The losses of DPO's trainer that make up the method's loss.

    cDPO has no loss of its own there (the smoothing of `sigmoid` is ignored), but follows from two:
    with l and l' the logistic losses of a label and of its opposite, `robust` is ((1 - e) l - e l')
    / (1 - 2 e), so (1 - e) l + e l' = 2 (1 - e) l - (1 - 2 e) robust.
    """
    method, smoothing = keys.recipe.method, keys.take("objective.label_smoothing") or 0.0
    if method == "mpo":
        mixed = keys.take("objective.losses")
        named = {TRL_LOSS[name]: float(weight) for name, weight in mixed.items()}
    elif method == "dpo" and smoothing:
        named = {"sigmoid": 2 * (1 - smoothing), "robust": -(1 - 2 * smoothing)}
    elif method == "dpo" and keys.take("objective.length_normalized"):
        named = {"sigmoid_norm": 1.0}
    else:
        named = {TRL_LOSS[method]: 1.0}
    nll = keys.take("objective.nll_weight")
    if nll:
        named["sft"] = nll
        keys.say(
            "the NLL of chosen answers is a mean over the tokens of a micro-batch there; here "
            "every pair counts alike"
        )
    return Mixture(list(named), list(named.values()), smoothing)


def whole_batch_note(keys: Keys, accumulation: int) -> None:
    """What a loss over a whole step becomes where a step is several micro-batches."""
    if keys.recipe.method in ("aot", "aot_unpaired", "kto") and accumulation > 1:
        keys.say(
            f"{keys.recipe.method} compares the records of a step; there it compares those of a "
            "micro-batch: raise the micro-batch to the whole step where memory allows it"
        )
