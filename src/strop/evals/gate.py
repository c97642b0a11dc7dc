"""The gate: target better, nothing else worse, both shown on the same items; else closed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from strop.errors import MissingEvidenceError, RecipeError
from strop.evals.stats import Comparison, noninferiority, superiority
from strop.recipe.eval import Policy
from strop.types import Check, EvalRecord, Verdict, VerdictName

EXIT_CODES: dict[VerdictName, int] = {"pass": 0, "regressed": 10, "inconclusive": 11}


def gate(base: Sequence[EvalRecord], candidate: Sequence[EvalRecord], policy: Policy) -> Verdict:
    """Judge a candidate against its base.

    Every guardrail has to pass (intersection-union: no correction); every target has to pass at
    its Holm level. Raises `MissingEvidenceError` where the two were not measured on the same items
    or an item could not be scored.
    """
    if not policy.targets and not policy.guardrails:
        raise RecipeError("the policy demands nothing", fix="add a target or a guardrail")
    checks = _targets(base, candidate, policy)
    for guardrail in policy.guardrails:
        pair = _paired(base, candidate, guardrail.score)
        comparison = noninferiority(
            pair.base,
            pair.candidate,
            margin=guardrail.margin,
            clusters=pair.clusters,
            alpha=policy.alpha,
        )
        checks.append(_check("guardrail", -guardrail.margin, comparison, pair))
    name = worst(check.verdict for check in checks)
    return Verdict(name, _sentence(name, checks), tuple(checks))


def worst(verdicts: Iterable[VerdictName]) -> VerdictName:
    """regressed before inconclusive before pass."""
    order: tuple[VerdictName, ...] = ("pass", "inconclusive", "regressed")
    return max(verdicts, key=order.index)


@dataclass(frozen=True, slots=True)
class _Pair:
    """Scores of one task on both sides, by position; clusters where items are grouped."""

    task: str
    base: list[float]
    candidate: list[float]
    clusters: list[str] | None


def _targets(
    base: Sequence[EvalRecord], candidate: Sequence[EvalRecord], policy: Policy
) -> list[Check]:
    """Every target, each at its level of Holm's step-down procedure."""
    judged = []
    for target in policy.targets:
        pair = _paired(base, candidate, target.score)
        comparison = superiority(
            pair.base,
            pair.candidate,
            min_gain=target.min_gain,
            clusters=pair.clusters,
            alpha=policy.alpha,
        )
        judged.append((comparison.p_value, _check("target", target.min_gain, comparison, pair)))
    ranked = sorted(judged, key=lambda item: item[0])
    checks = []
    holding = True
    for rank, (p_value, check) in enumerate(ranked):
        holding = holding and p_value <= policy.alpha / 2 / (len(ranked) - rank)
        demoted = check.verdict == "pass" and not holding
        checks.append(replace(check, verdict="inconclusive") if demoted else check)
    return checks


def _paired(base: Sequence[EvalRecord], candidate: Sequence[EvalRecord], task: str) -> _Pair:
    left, right = _by_item(base, task), _by_item(candidate, task)
    if not left or not right:
        side = "base" if not left else "candidate"
        known = sorted({record.task for record in (base if not left else candidate)})
        raise MissingEvidenceError(
            f"the {side} has no scores named {task!r}", fix=f"it has {', '.join(known)}"
        )
    if left.keys() != right.keys():
        raise MissingEvidenceError(
            f"{task}: base and candidate were measured on different items "
            f"({len(left.keys() - right.keys())} only in base, "
            f"{len(right.keys() - left.keys())} only in candidate)",
            fix="run the same suite on both",
        )
    unscored = sum(left[key].score is None or right[key].score is None for key in left)
    if unscored:
        raise MissingEvidenceError(
            f"{task}: {unscored} of {len(left)} items could not be scored on both sides",
            fix="mend the reward or judge and run the suite again; unscored is not zero",
        )
    if len(left) < 2:
        raise MissingEvidenceError(f"{task}: one item proves nothing", fix="measure more items")
    clusters = [record.cluster for record in left.values()]
    grouped = len(set(clusters)) < len(clusters)
    return _Pair(
        task,
        [record.score or 0.0 for record in left.values()],
        [right[key].score or 0.0 for key in left],
        clusters if grouped else None,
    )


def _by_item(records: Sequence[EvalRecord], task: str) -> dict[tuple[str, int], EvalRecord]:
    found: dict[tuple[str, int], EvalRecord] = {}
    for record in records:
        if record.task == task:
            key = (record.item, record.sample)
            if key in found:
                raise MissingEvidenceError(
                    f"{task}: item {record.item!r} appears twice",
                    fix="give every row its own item (or sample number)",
                )
            found[key] = record
    return found


def _check(
    kind: Literal["target", "guardrail"], bound: float, comparison: Comparison, pair: _Pair
) -> Check:
    return Check(
        name=pair.task,
        kind=kind,
        estimate=comparison.estimate,
        low=comparison.low,
        high=comparison.high,
        bound=bound,
        verdict=comparison.verdict,
        n=comparison.n,
        n_needed=comparison.n_needed,
        method=comparison.method,
        base=fmean(pair.base),
        candidate=fmean(pair.candidate),
    )


def _sentence(name: VerdictName, checks: Sequence[Check]) -> str:
    """What a person needs to know, in one sentence."""
    if name == "pass":
        targets = [check for check in checks if check.kind == "target"] or list(checks)
        kept = [check.name for check in checks if check not in targets]
        holds = f"; {' and '.join(kept)} did not get worse" if kept else ""
        return f"Pass: {'; '.join(map(_change, targets))}{holds}."
    blocking = [check for check in checks if check.verdict == name]
    said = "; ".join(map(_change, blocking))
    if name == "regressed":
        return f"Regressed: {said}."
    needed = [str(check.n_needed) for check in blocking if check.n_needed]
    more = f" About {max(needed, key=int)} items would decide it." if needed else ""
    return f"Inconclusive: {said}; not enough to promote.{more}"


def _change(check: Check) -> str:
    verb = "rose" if check.estimate > 0 else "fell" if check.estimate < 0 else "stayed"
    return (
        f"{check.name} {verb} from {check.base:.3f} to {check.candidate:.3f} "
        f"({check.estimate:+.3f}, 95 % interval {check.low:+.3f} to {check.high:+.3f})"
    )
