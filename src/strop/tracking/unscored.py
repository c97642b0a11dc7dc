"""What to say where no completion has a total: two rewards for two kinds of task need a word."""

from __future__ import annotations

from collections.abc import Sequence

from strop.types import Score

OPTIONAL = "mark every reward that judges only some of the tasks `optional: true`"
"""The fix where rewards returned `None` without an error."""


def shares_scored(scores: Sequence[Score]) -> str | None:
    """`"code scored 2 of 4, maths 2 of 4"` where every reward scored something, but no completion
    was scored by all of them; `None` otherwise."""
    counts = {
        name: sum(score.components[name] is not None for score in scores)
        for name in scores[0].components
    }
    if any(score.total is not None for score in scores) or not all(counts.values()):
        return None
    return ", ".join(f"{name} scored {count} of {len(scores)}" for name, count in counts.items())
