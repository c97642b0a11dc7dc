"""A verdict in one sentence that a manager can read."""

from __future__ import annotations

from collections.abc import Sequence

from strop.types import Check, VerdictName


def sentence(name: VerdictName, checks: Sequence[Check]) -> str:
    """What was decided, and because of what."""
    if name == "pass":
        targets = [check for check in checks if check.kind == "target"] or list(checks)
        kept = [check.name for check in checks if check not in targets]
        holds = f"; {' and '.join(kept)} did not get worse" if kept else ""
        return f"Pass: {'; '.join(map(change, targets))}{holds}."
    blocking = [check for check in checks if check.verdict == name]
    said = "; ".join(map(change, blocking))
    if name == "regressed":
        return f"Regressed: {said}."
    needed = max((check.n_needed for check in blocking if check.n_needed), default=None)
    more = f" About {needed} items would decide it." if needed else ""
    return f"Inconclusive: {said}; not enough to promote.{more}"


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
