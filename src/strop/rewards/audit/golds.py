"""Gold answers that their own verifier rejects: no completion could ever earn the reward."""

from __future__ import annotations

from collections.abc import Sequence

from strop.errors import DataError
from strop.rewards.audit.attacks import Pair
from strop.rewards.compose import Reward, as_said, columns_of

SHOWN = 5


def expect_golds(reward: Reward, pairs: Sequence[Pair]) -> None:
    """Raise `DataError` naming the rows whose own right answer the first component rejects."""
    component, function = reward.components[0]
    judged = Reward([component], functions=[function]).judge(
        [pair.task.prompt for pair in pairs],
        [as_said(pair.task.prompt, pair.right) for pair in pairs],
        columns_of([pair.task for pair in pairs]),
    )
    rejected = [
        (pair, value)
        for pair, score in zip(pairs, judged.scores, strict=True)
        if (value := score.components[component.label]) is None or value < 1.0
    ]
    if rejected:
        lines = "".join(
            f"\n  {pair.task.origin}: {pair.gold if pair.gold is not None else pair.right!r} "
            f"earned {value}"
            for pair, value in rejected[:SHOWN]
        )
        more = f"\n  and {len(rejected) - SHOWN} more" if len(rejected) > SHOWN else ""
        raise DataError(
            f"{component.label} rejects the right answer of {len(rejected)} of {len(pairs)} "
            f"tasks:{lines}{more}",
            fix="mend these rows, or choose the verifier that reads such answers",
        )
