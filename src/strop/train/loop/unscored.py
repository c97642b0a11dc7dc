"""Completions that a reward could not score: counted by reward and reason, and limited."""

from __future__ import annotations

from collections.abc import Sequence

from strop.errors import UnscoredError
from strop.recipe.train.reward import RewardComponent
from strop.rewards.compose import OPTIONAL
from strop.train.loop.state import Streaks
from strop.types import FAILED, Failure, ScoredGroup

PATIENCE = 3
"""Steps in a row after which a component above its `max_unscored` ends the run."""


def unscored_metrics(
    components: Sequence[RewardComponent],
    groups: Sequence[ScoredGroup],
    failures: Sequence[Failure],
) -> dict[str, float]:
    """Counts `rewards/<name>/unscored` and, where a failure has a kind, `rewards/<name>/<kind>`;
    for the others the reward returned `None`. Counts of 0 are not listed."""
    row: dict[str, float] = {}
    for component in components:
        count = _unscored(component, groups)
        if count:
            row[f"rewards/{component.label}/unscored"] = count
    for failure in failures:
        name = f"rewards/{failure.component}/{failure.kind}"
        row[name] = row.get(name, 0) + failure.count
    return row


def expect_scored(
    components: Sequence[RewardComponent],
    groups: Sequence[ScoredGroup],
    failures: Sequence[Failure],
    streaks: Streaks,
    where: str,
) -> None:
    """Raise `UnscoredError` for a component above its `max_unscored` for the third step in a row;
    `streaks` count these steps."""
    total = sum(len(group.scores) for group in groups)
    for component in components:
        share = _unscored(component, groups) / total
        if streaks.see(component.label, share > component.unscored_limit) < PATIENCE:
            continue
        why, fix = _reason(component, groups, failures)
        raise UnscoredError(
            f"reward {component.label} left {share:.0%} of the completions unscored, "
            f"more than {component.unscored_limit:.0%} for {PATIENCE} steps in a row; {why}",
            where=where,
            fix=f"{fix}, or raise its `max_unscored`",
        )


def _reason(
    component: RewardComponent, groups: Sequence[ScoredGroup], failures: Sequence[Failure]
) -> tuple[str, str]:
    """Why completions of the last step are unscored, and what mends it."""
    said = [f.error for f in failures if f.component == component.label]
    if said:
        return f"the last error: {said[-1]}", "try it with `strop reward check` and mend it"
    failed = sum(c.finish in FAILED for group in groups for c in group.rollout.completions)
    if failed:
        return (
            f"in the last step {failed} of them had failed or were called off before it judged",
            "mend what the warnings above name (the environment, the engine)",
        )
    return "it returned None without an error", OPTIONAL


def _unscored(component: RewardComponent, groups: Sequence[ScoredGroup]) -> int:
    return sum(s.components[component.label] is None for group in groups for s in group.scores)
