"""When a run calls for attention, and what it then does by itself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from strop.recipe.base import Strict


class AlarmRecipe(Strict):
    """`threshold` has to be crossed for `patience` steps in a row; then `action`.

    `warn` says so and writes it down, `pause` saves and ends the run so that it can be looked at
    and resumed, `stop` saves and ends it for good, `off` does not look.
    """

    threshold: float
    patience: int = Field(ge=1)
    action: Literal["warn", "pause", "stop", "off"] = "warn"


class CommonAlarms(Strict):
    """`spike`: gradient norm as a multiple of its recent median."""

    spike: AlarmRecipe = AlarmRecipe(threshold=10.0, patience=3)


class PairAlarms(CommonAlarms):
    """`displacement`: chosen log-prob per token below the reference by this many nats while the
    margin has risen."""

    displacement: AlarmRecipe = AlarmRecipe(threshold=0.02, patience=3)


class PolicyAlarms(CommonAlarms):
    """Alarms of methods that learn from their own samples.

    `entropy_collapse`: entropy as a share of what it was at the start; `kl_runaway`: KL to the
    reference in nats per token; `zero_variance`: share of groups whose rewards are all equal;
    `length_drift`: mean completion length over its start, without a held-out gain;
    `hacking`: fall of the held-out reward from its best while the trained reward rose;
    `mismatch`: mean difference of sampler and trainer log-probs, nats per token.
    """

    entropy_collapse: AlarmRecipe = AlarmRecipe(threshold=0.1, patience=5)
    kl_runaway: AlarmRecipe = AlarmRecipe(threshold=0.5, patience=3)
    zero_variance: AlarmRecipe = AlarmRecipe(threshold=0.9, patience=10)
    length_drift: AlarmRecipe = AlarmRecipe(threshold=1.5, patience=5)
    hacking: AlarmRecipe = AlarmRecipe(threshold=0.05, patience=1)
    mismatch: AlarmRecipe = AlarmRecipe(threshold=0.1, patience=3)


class OwnPairAlarms(PolicyAlarms, PairAlarms):
    """Online DPO learns from pairs and from its own samples."""
