"""The numbers of a policy-gradient method, the paper's where the recipe leaves them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from strop.advise.elsewhere.carried import Keys
from strop.losses.presets import PRESETS, PolicyLoss
from strop.recipe.train.online import PolicyRecipe

LOG_CLIP = 0.4
"""GMPO's bound on a token's log-ratio (arXiv 2507.20673, section 5)."""

SHARPNESS = (1.0, 1.05)
"""SAPO's temperatures of the gate for good and bad tokens (arXiv 2511.20347)."""


@dataclass(frozen=True, slots=True)
class PolicyNumbers:
    """`PolicyNumbers(loss, 0.2, 0.28, None, 1, 1)` for DAPO: bounds of the ratio, the dual clip,
    passes over a step's samples, and updates in each pass."""

    loss: PolicyLoss
    low: float | None
    high: float | None
    dual: float | None
    passes: int
    cuts: int

    @property
    def updates(self) -> int:
        """Optimizer steps of a step of strop."""
        return self.passes * self.cuts


def policy_numbers(keys: Keys) -> PolicyNumbers:
    """What the loss is made of; its keys are carried over."""
    recipe = keys.recipe
    assert isinstance(recipe, PolicyRecipe)
    loss = PRESETS[recipe.method](**recipe.objective.loss_options())
    for name in ("beta", "epsilon_low", "epsilon_high", "num_iterations", "mini_batches"):
        keys.take(f"objective.{name}")
    low, high = loss.bounds
    if recipe.method == "gmpo":
        low = keys.at("objective.epsilon_low") or LOG_CLIP
        high = keys.at("objective.epsilon_high") or LOG_CLIP
    passes, cuts = recipe.objective.updates
    return PolicyNumbers(loss, low, high, keys.take("objective.dual_clip"), passes, cuts)


def gates(keys: Keys) -> tuple[float, float]:
    """SAPO's temperatures for good and for bad tokens."""
    good, bad = (keys.take(f"objective.temperature_{which}") for which in ("positive", "negative"))
    return good or SHARPNESS[0], bad or SHARPNESS[1]


def lose_rollout(keys: Keys, system: str, *also: str) -> None:
    """What of a rollout only strop has; `also` are further keys of this system."""
    lost: dict[str, Any] = {
        "rollout.stop": f"{system} ends an answer at the tokenizer's own end only",
        "rollout.include_stop_str_in_output": f"{system} ends an answer at no text",
        "rollout.skip_special_tokens": f"{system} hands rewards the text without special tokens",
        **dict.fromkeys(also, f"{system} has no such setting"),
    }
    for name, why in lost.items():
        keys.lose(name, why)
    keys.lose_on(
        "rollout.resample",
        f"{system} does not draw other prompts for groups whose rewards are all equal",
    )


def lose_kl(keys: Keys, kind: str, place: str) -> None:
    """Say where the KL is of another estimator, or in another place, than the one that the system
    has."""
    loss = policy_numbers(keys).loss
    keys.take("objective.kl")
    keys.take("objective.kl_in")
    if loss.beta and (loss.kl, loss.kl_in) != (kind, place):
        keys.say(
            f"`objective.kl`, `objective.kl_in`: the KL is the estimator {kind} in the {place} "
            f"there, and {loss.kl} in the {loss.kl_in} here"
        )
