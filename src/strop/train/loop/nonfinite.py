"""What is logged of a step of which an update was left out, for it was not finite."""

from __future__ import annotations

from strop.train.loop.state import TrainState

SKIPPED = "skipped/nonfinite"


def skipped_row(learning_rate: float, made: int = 0) -> dict[str, float]:
    """The metrics of a step of which an update was left out, after `made` others."""
    row = {SKIPPED: 1.0, "learning_rate": learning_rate}
    return {**row, "nonfinite/updates_before": float(made)} if made else row


def made_since(state: TrainState, before: tuple[int, int]) -> tuple[int, str]:
    """How many updates were made since `state.updates()` was `before`, and in words."""
    policy, critic = (now - then for now, then in zip(state.updates(), before, strict=True))
    said = f"{policy} update{'s' if policy > 1 else ''} of the policy"
    if state.critic is not None:
        said += f" and {critic} of the critic"
    return policy + critic, said if policy + critic else ""
