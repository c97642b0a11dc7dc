"""The gate passes only if the target is shown to be better and nothing else worse, on the same
items. A verdict says why in one sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Literal

from strop.evals.gate.pairing import Paired, paired, slices
from strop.evals.scale import expect_one_scale
from strop.recipe.gate import Demand, GateRules
from strop.stats import Comparison, band, noninferiority, superiority
from strop.stats.flips import flips, mcnemar
from strop.stats.multiple import holm
from strop.types import Check, EvalRecord, Verdict, VerdictName

EXIT_CODES: dict[VerdictName, int] = {"pass": 0, "regressed": 10, "inconclusive": 11}

EvalRecords = Sequence[EvalRecord]


def gate(
    base: EvalRecords,
    candidate: EvalRecords,
    policy: GateRules,
    *,
    noise: Sequence[EvalRecords] = (),
) -> Verdict:
    """Judge a candidate against its base.

    Every guardrail and band has to pass (intersection-union: no correction); every target has to
    pass at its Holm level. `noise` are evals of models that differ from the base only by chance,
    such as the seed. Raises `MissingEvidenceError` where the two were not measured on the same
    items or on one scale, or too many items could not be scored.
    """

    demands: tuple[Demand, ...] = (*policy.targets, *policy.guardrails, *policy.bands)
    scales = {demand.score: demand.scale for demand in demands if demand.scale is not None}

    def beside(other: EvalRecords, score: str) -> Paired:
        found = paired(base, other, score, max_unscored=policy.max_unscored)
        expect_one_scale(score, found.sides, scales.get(score))
        return found

    def pair(score: str) -> Paired:
        return beside(candidate, score)

    def floor(score: str) -> float | None:
        pairs = [beside(again, score) for again in noise]
        return max((_noise_bound(one, policy.alpha) for one in pairs), default=None)

    checks = _targets([pair(target.score) for target in policy.targets], policy)
    for guardrail in policy.guardrails:
        found = pair(guardrail.score)
        comparison = noninferiority(
            found.base,
            found.candidate,
            margin=guardrail.margin,
            clusters=found.clusters,
            alpha=policy.alpha,
        )
        checks.append(_check("guardrail", -guardrail.margin, comparison, found))
    checks = [_above_noise(check, floor(check.name)) for check in checks]
    for limits in policy.bands:
        found = pair(limits.score)
        comparison = band(
            found.base,
            found.candidate,
            low=limits.low,
            high=limits.high,
            clusters=found.clusters,
            alpha=policy.alpha,
        )
        checks.append(replace(_check("band", limits.low, comparison, found), upper=limits.high))
    name = worst(check.verdict for check in checks)
    scores = list(dict.fromkeys(check.name for check in checks if check.kind != "band"))
    groups = slices([pair(score) for score in scores], policy.alpha)
    return Verdict(name, sentence(name, checks), tuple(checks), groups, _remarks(checks))


def worst(verdicts: Iterable[VerdictName]) -> VerdictName:
    """regressed before inconclusive before pass."""
    order: tuple[VerdictName, ...] = ("pass", "inconclusive", "regressed")
    return max(verdicts, key=order.index)


def _targets(pairs: Sequence[Paired], policy: GateRules) -> list[Check]:
    """Every target, each at its level of Holm's step-down procedure (Holm 1979)."""
    compared = [
        superiority(
            pair.base,
            pair.candidate,
            min_gain=target.min_gain,
            clusters=pair.clusters,
            alpha=policy.alpha,
        )
        for pair, target in zip(pairs, policy.targets, strict=True)
    ]
    adjusted = holm([comparison.p_value for comparison in compared])
    checks = []
    for pair, target, comparison, p_value in zip(
        pairs, policy.targets, compared, adjusted, strict=True
    ):
        check = _check("target", target.min_gain, comparison, pair)
        demoted = check.verdict == "pass" and p_value > policy.alpha / 2
        checks.append(replace(check, verdict="inconclusive") if demoted else check)
    return checks


def _noise_bound(pair: Paired, alpha: float) -> float:
    """The largest absolute difference inside the interval of an A/A comparison."""
    found = superiority(pair.base, pair.candidate, clusters=pair.clusters, alpha=alpha)
    return max(abs(found.low), abs(found.high))


def _above_noise(check: Check, floor: float | None) -> Check:
    """A gain or a loss also has to exceed the noise floor, else it counts as neither.

    Items and retraining vary independently, so their half-widths add in squares. A guardrail that
    holds still holds.
    """
    if floor is None:
        return check
    low = check.estimate - math.hypot(check.estimate - check.low, floor)
    high = check.estimate + math.hypot(check.high - check.estimate, floor)
    gained = check.kind == "target" and check.verdict == "pass" and low <= check.bound
    lost = check.verdict == "regressed" and high >= 0
    verdict: VerdictName = "inconclusive" if gained or lost else check.verdict
    return replace(check, floor=floor, noisy=gained or lost, verdict=verdict)


def _check(
    kind: Literal["target", "guardrail", "band"], bound: float, comparison: Comparison, pair: Paired
) -> Check:
    check = Check(
        name=pair.score,
        kind=kind,
        estimate=comparison.estimate,
        low=comparison.low,
        high=comparison.high,
        bound=bound,
        verdict=comparison.verdict,
        n=comparison.n,
        n_needed=comparison.n_needed,
        detectable=comparison.detectable,
        method=comparison.method,
        base=fmean(pair.base),
        candidate=fmean(pair.candidate),
        unscored=pair.unscored,
        items=len({one.item for one, _ in pair.sides}),
    )
    if not pair.is_binary:
        return check
    changed = flips(pair.base, pair.candidate, items=[one.item for one, _ in pair.sides])
    exact = mcnemar(pair.base, pair.candidate) if pair.clusters is None else None
    return replace(
        check,
        lost=changed.harmful,
        gained=changed.helpful,
        churn=changed.churn,
        mcnemar=exact,
    )


def _remarks(checks: Sequence[Check]) -> tuple[str, ...]:
    return tuple(
        f"{check.name}: {check.unscored} of {counted(check, check.n)} could not be scored and "
        "count against the candidate"
        for check in checks
        if check.unscored
    )


def sentence(name: VerdictName, checks: Sequence[Check]) -> str:
    """The decision and its reasons."""
    if name == "pass":
        targets = [check for check in checks if check.kind == "target"] or list(checks)
        kept = [check.name for check in checks if check not in targets]
        holds = f"; {' and '.join(kept)} did not get worse" if kept else ""
        return f"Pass: {'; '.join(map(change, targets))}{holds}."
    blocking = [check for check in checks if check.verdict == name]
    said = "; ".join(map(change, blocking))
    if name == "regressed":
        return f"Regressed: {said}."
    asking = [(check.n_needed, check) for check in blocking if check.n_needed]
    needed, most = max(asking, key=lambda one: one[0], default=(0, None))
    more = f" About {counted(most, needed)} would decide it." if most else ""
    return f"Inconclusive: {said}; not enough to promote.{more}"


def counted(check: Check, n: int) -> str:
    """So many scores of a check: `"32 items"`, `"32 answers (8 items with 4 samples each)"`."""
    if check.items is None or check.items == check.n:
        return f"{n} items"
    each = check.n / check.items
    return f"{n} answers ({math.ceil(n / each)} items with {each:g} samples each)"


def change(check: Check) -> str:
    """`accuracy rose from 0.440 to 0.970 (+0.530, 95 % interval +0.480 to +0.580)`."""
    if check.kind == "band":
        return (
            f"{check.name} went from {check.base:.3g} to {check.candidate:.3g}, times "
            f"{check.estimate:.2f} (interval {check.low:.2f} to {check.high:.2f}, allowed "
            f"{check.bound:g} to {check.upper:g})"
        )
    verb = "rose" if check.estimate > 0 else "fell" if check.estimate < 0 else "stayed"
    noise = f", not clear of the noise floor of {check.floor:.3f}" if check.noisy else ""
    return (
        f"{check.name} {verb} from {check.base:.3f} to {check.candidate:.3f} "
        f"({check.estimate:+.3f}, 95 % interval {check.low:+.3f} to {check.high:+.3f}{noise})"
    )
