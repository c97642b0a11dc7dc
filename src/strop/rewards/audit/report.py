"""The output of `strop reward`: tables of at most 100 columns, and the same as plain values."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from strop.errors import RewardError
from strop.recipe.train.reward import RewardComponent
from strop.rewards.audit.dominance import Dominance, Margin, RewardFault
from strop.rewards.audit.probes import ProbeFinding
from strop.rewards.audit.sample import Scored
from strop.rewards.compose import OPTIONAL, shares_scored
from strop.stats.agreement import cohen_kappa
from strop.stats.auc import auc

BARS = " .:-=+*#%@"
BINS = 10


@dataclass(frozen=True, slots=True)
class RewardCheck:
    """A reward on real completions. `agreement` with the labels: Cohen's kappa of the first
    component (at least half) and the area under the ROC curve of the total. The figures within
    groups are `None` if no prompt has two scored completions."""

    completions: int
    groups: int
    unscored: int
    mean: float
    components: dict[str, dict[str, float]]
    histogram: list[int]
    low: float
    high: float
    within_group_std: float | None
    equal_groups: float | None
    kappa: float | None
    auc: float | None
    slowest: str
    failures: tuple[str, ...]


def check(
    components: Sequence[RewardComponent], scored: Scored, seconds: Mapping[str, float]
) -> RewardCheck:
    """Describe scores. Raises `RewardError` if nothing can be learnt from the reward: no completion
    is scored, all scores are equal, or a component never scores."""
    totals = [score.total for score in scored.scores]
    known = [total for total in totals if total is not None]
    _expect_use(components, scored, known)
    low, high = min(known), max(known)
    histogram = [0] * BINS
    for total in known:
        histogram[min(BINS - 1, int((total - low) / (high - low) * BINS))] += 1
    groups = [[t for i in g if (t := totals[i]) is not None] for g in scored.groups]
    spreads = [statistics.pstdev(group) for group in groups if len(group) > 1]
    labelled = [
        (score.components[components[0].label], score.total, said.label > 0.5)
        for said, score in zip(scored.said, scored.scores, strict=True)
        if said.label is not None and score.total is not None
    ]
    both = len({label for *_, label in labelled}) == 2
    return RewardCheck(
        completions=len(totals),
        groups=len(groups),
        unscored=len(totals) - len(known),
        mean=statistics.fmean(known),
        components={c.label: _described(scored, c.label, seconds) for c in components},
        histogram=histogram,
        low=low,
        high=high,
        within_group_std=statistics.fmean(spreads) if spreads else None,
        equal_groups=sum(s == 0 for s in spreads) / len(spreads) if spreads else None,
        kappa=cohen_kappa([(p or 0.0) >= 0.5 for p, *_ in labelled], [x for *_, x in labelled])
        if both
        else None,
        auc=auc([t for _, t, x in labelled if x], [t for _, t, x in labelled if not x])
        if both
        else None,
        slowest=max(seconds, key=lambda label: seconds[label]),
        failures=tuple(f"{f.component}: {f.error}" for f in scored.failures),
    )


def _expect_use(
    components: Sequence[RewardComponent], scored: Scored, known: Sequence[float]
) -> None:
    reasons = "; ".join(f"{f.component}: {f.error}" for f in scored.failures)
    for component in components:
        if all(score.components[component.label] is None for score in scored.scores):
            raise RewardError(
                f"{component.label} scored none of {len(scored.scores)} completions"
                + (f" ({reasons})" if reasons else ""),
                fix="check the columns it reads and what it raises",
            )
    if not known:
        raise RewardError(
            f"no completion is scored by every reward: {shares_scored(scored.scores)}"
            + (f" ({reasons})" if reasons else ""),
            fix=OPTIONAL,
        )
    if min(known) == max(known):
        raise RewardError(
            f"the reward is {known[0]:g} for all {len(known)} completions: nothing can be learnt",
            fix="give completions of different quality, or another reward",
        )


def _described(scored: Scored, label: str, seconds: Mapping[str, float]) -> dict[str, float]:
    values = [v for score in scored.scores if (v := score.components[label]) is not None]
    return {
        "mean": statistics.fmean(values),
        "std": statistics.pstdev(values),
        "low": min(values),
        "high": max(values),
        "unscored": len(scored.scores) - len(values),
        "ms": 1000 * seconds[label] / len(scored.scores),
    }


def checked_lines(found: RewardCheck) -> list[str]:
    most = max(found.histogram)
    bars = "".join(BARS[math.ceil(n / most * (len(BARS) - 1))] for n in found.histogram)
    lines = [
        f"{found.completions} completions of {found.groups} prompts, {found.unscored} unscored",
        f"total      mean {found.mean:.3f}   {found.low:.3g} [{bars}] {found.high:.3g}",
        _groups_line(found),
        "",
        f"{'component':<24} "
        + " ".join(f"{name:>8}" for name in ("mean", "std", "low", "high", "unscored", "ms")),
    ]
    lines += [
        f"{label:<24.24} {row['mean']:>8.3f} {row['std']:>8.3f} {row['low']:>8.3g} "
        f"{row['high']:>8.3g} {row['unscored']:>8.0f} {row['ms']:>8.2f}"
        for label, row in found.components.items()
    ]
    lines.append(f"slowest: {found.slowest}")
    if found.kappa is not None and found.auc is not None:
        lines.append(
            f"labels: kappa {found.kappa:.3f} (first component), AUC {found.auc:.3f} (total)"
        )
    return [*lines, *(f"failed: {failure}" for failure in found.failures)]


def _groups_line(found: RewardCheck) -> str:
    if found.within_group_std is None or found.equal_groups is None:
        return "in groups  one scored completion a prompt, so nothing is known; give several"
    return f"in groups  std {found.within_group_std:.3f}, {found.equal_groups:.0%} of groups equal"


def audit_lines(found: Dominance, margin: Margin, faults: Sequence[RewardFault]) -> list[str]:
    lines = [f"{'component':<24} share of the advantage, {found.groups} groups"]
    for label, share in found.shares.items():
        lines.append(f"{label:<24.24} {share:>7.1%}  {'#' * round(40 * max(0.0, share))}")
    if not found.shares:
        lines.append("no reward differs within any group")
    inversions = "unknown" if found.inversions is None else f"{found.inversions:.1%}"
    lines += [
        f"wrongly ranked pairs {inversions}, pairs that differ in components but not in the total "
        f"{found.collapsed:.1%}",
        f"static margin {margin.value:+.3g} (at 0 or below a wrong answer can outrank a right one)",
    ]
    for fault in faults:
        lines += [f"FAILS {fault.component}: {fault.problem}", f"  fix: {fault.fix}"]
    return lines if faults else [*lines, "holds"]


def probe_lines(findings: Sequence[ProbeFinding]) -> list[str]:
    lines = [f"{'probe':<24} {'verdict':<10} {'held':>11} {'at least':>9}"]
    for one in findings:
        name = f"{one.probe}{' !' if one.critical else ''}"
        lines.append(
            f"{name:<24.24} {one.verdict:<10} {one.held:>5}/{one.trials:<5} {one.low:>9.1%}"
        )
        if one.example and one.verdict == "fails":
            lines.append(f"  {one.example[:96]}")
    return [*lines, "! critical: has to hold every time"]


def plain(value: Any) -> Any:
    """A result as JSON."""
    return asdict(value)
