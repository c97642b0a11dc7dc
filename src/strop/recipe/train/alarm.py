"""Alarms: thresholds on a run's metrics, and the actions they trigger."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from strop.recipe.base import Strict


def _off(action: Any) -> Any:
    """YAML reads a bare `off` as false."""
    return "off" if action is False else action


class AlarmRecipe(Strict):
    """After `patience` steps in a row beyond `threshold`, the run takes `action`.

    `warn` warns and logs, `pause` saves and ends the run so that it can be inspected and resumed,
    `rollback` ends it at the last checkpoint before the threshold was first crossed, `stop` saves
    and ends it for good, `off` disables the alarm.
    """

    threshold: float
    patience: int = Field(ge=1)
    action: Annotated[
        Literal["warn", "pause", "rollback", "stop", "off"], BeforeValidator(_off)
    ] = "warn"


class CommonAlarms(Strict):
    """`spike`: gradient norm as a multiple of its recent median; `capability_regression`: how many
    of `dev.general` are down by more than `dev.tolerance` while `dev.metric` is up (patience counts
    measurements). Keys that are left out take the alarm's defaults: `displacement: stop`."""

    spike: AlarmRecipe = AlarmRecipe(threshold=10.0, patience=3)
    capability_regression: AlarmRecipe = AlarmRecipe(threshold=0.0, patience=2)

    @model_validator(mode="before")
    @classmethod
    def _filled_up(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        usual = {name: info.default.model_dump() for name, info in cls.model_fields.items()}
        full = {}
        for name, value in given.items():
            said = {"action": value} if isinstance(value, str | bool) else value
            known = name in usual and isinstance(said, dict)
            full[name] = usual[name] | said if known else said
        return full


class PairAlarms(CommonAlarms):
    """`displacement`: chosen log-prob per token below the best it has been (at first: the
    reference) by this many nats while the margin has risen."""

    displacement: AlarmRecipe = AlarmRecipe(threshold=0.025, patience=3)


class SampleAlarms(CommonAlarms):
    """Alarms of every method that trains on its own samples.

    `entropy_collapse`: entropy as a share of what it was at the start; `zero_variance`: share of
    groups whose rewards are all equal; `length_drift`: mean completion length over its start,
    without a held-out gain; `hacking`: fall of the held-out reward from its best, beyond its noise,
    while the trained reward rose (patience counts evals); `proxy_gap`: the same as a running sum
    (CUSUM) in standard errors; `slopes`: t of the trained reward's rise and the held-out reward's
    fall over 8 evals; `habits`: z of a way of writing (`strop.text.habits`) that became
    common; `length_pay`: correlation of reward and length at equal correctness; `dominance`: share
    of the advantage that the first reward does not drive.
    """

    entropy_collapse: AlarmRecipe = AlarmRecipe(threshold=0.1, patience=5)
    zero_variance: AlarmRecipe = AlarmRecipe(threshold=0.9, patience=10)
    length_drift: AlarmRecipe = AlarmRecipe(threshold=1.5, patience=5)
    hacking: AlarmRecipe = AlarmRecipe(threshold=0.05, patience=2)
    proxy_gap: AlarmRecipe = AlarmRecipe(threshold=5.0, patience=1)
    slopes: AlarmRecipe = AlarmRecipe(threshold=3.0, patience=1)
    habits: AlarmRecipe = AlarmRecipe(threshold=6.5, patience=1)
    length_pay: AlarmRecipe = AlarmRecipe(threshold=0.5, patience=2)
    dominance: AlarmRecipe = AlarmRecipe(threshold=0.5, patience=5)


class PolicyAlarms(SampleAlarms):
    """Alarms of policy gradients.

    `kl_runaway`: KL to the reference in nats per token; `mismatch`: mean difference of sampler and
    trainer log-probs, nats per token.
    """

    kl_runaway: AlarmRecipe = AlarmRecipe(threshold=0.5, patience=3)
    mismatch: AlarmRecipe = AlarmRecipe(threshold=0.1, patience=3)


class DistilAlarms(CommonAlarms):
    """Alarms of distillation.

    `teacher_divergence`: distance from the teacher as a multiple of what it was at the start;
    `entropy_collapse`: entropy as a share of what it was at the start, while there is still much to
    learn from the teacher.
    """

    teacher_divergence: AlarmRecipe = AlarmRecipe(threshold=1.5, patience=5)
    entropy_collapse: AlarmRecipe = AlarmRecipe(threshold=0.1, patience=5)


class GkdAlarms(DistilAlarms):
    """Alarms of GKD; `length_drift`: mean length of the student's own answers over its start."""

    length_drift: AlarmRecipe = AlarmRecipe(threshold=1.5, patience=5)


class DistilSampleAlarms(PolicyAlarms):
    """Alarms of policy gradients with a teacher; `teacher_divergence` as in `DistilAlarms`."""

    teacher_divergence: AlarmRecipe = AlarmRecipe(threshold=1.5, patience=5)


class OnlineDpoAlarms(SampleAlarms, PairAlarms):
    """Alarms of online DPO, which trains on pairs of its own samples."""
