"""Symptoms of reward hacking in a step's own samples: `hack/...` metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence

from strop.episodes import Episode, asked_of, said_by_policy
from strop.recipe.train.reward import RewardComponent
from strop.text.habits import HABITS
from strop.text.parse import plain
from strop.text.tool_habits import TOOL_HABITS, paid_to_stop
from strop.types import ScoredGroup

LEAST_SHARE = 0.05
"""Pay for length is measured only if this share of the reward's variance is left to explain."""


def habits_of(group: ScoredGroup) -> list[tuple[str, ...]]:
    """The habits that each completion of a group shows; of an episode also those of using tools."""
    said = group.rollout.completions
    paid = paid_to_stop([one for one in said if isinstance(one, Episode)])
    found = []
    for number, one in enumerate(said):
        prompt = plain(asked_of(group.rollout.task, one))
        names = [name for name, shows in HABITS.items() if shows(prompt, one.text)]
        if isinstance(one, Episode):
            names += [name for name, shows in TOOL_HABITS.items() if shows(prompt, one.messages)]
            if paid[number] and "stopped_early" not in names:
                names.append("stopped_early")
        found.append(tuple(names))
    return found


def symptoms(
    components: Sequence[RewardComponent],
    groups: Sequence[ScoredGroup],
    habits: Sequence[Sequence[Sequence[str]]],
) -> dict[str, float]:
    """`hack/<habit>` shares of all completions (`habits` by group, as `habits_of` gives them), and
    `hack/length_pay`. The habits of using tools are only there where answers are episodes."""
    shown = [names for group in habits for names in group]
    plays = any(isinstance(c, Episode) for group in groups for c in group.rollout.completions)
    looked_for = [*HABITS, *(TOOL_HABITS if plays else ())]
    row = {f"hack/{name}": sum(name in h for h in shown) / len(shown) for name in looked_for}
    if not components:
        return row
    return row | {"hack/length_pay": length_pay(components[0].label, groups)}


def length_pay(primary: str, groups: Sequence[ScoredGroup]) -> float:
    """Correlation, from -1 to 1, of reward and length among completions of one prompt with the same
    first component: the pay for length itself.

    0 if less than 5 % of the reward's variance within groups remains at equal correctness.
    """
    lengths: list[float] = []
    rewards: list[float] = []
    whole = 0.0
    for group in groups:
        cells: dict[float | None, list[tuple[float, float]]] = {}
        for score, completion in zip(group.scores, group.rollout.completions, strict=True):
            if score.total is not None:
                cell = cells.setdefault(score.components[primary], [])
                cell.append((float(said_by_policy(completion)), score.total))
        whole += sum(r * r for r in _centred([r for cell in cells.values() for _, r in cell]))
        if len(cells) == 1 and whole == 0.0:
            continue
        for cell in cells.values():
            lengths += _centred([n for n, _ in cell])
            rewards += _centred([r for _, r in cell])
    left = math.fsum(r * r for r in rewards)
    spread = math.fsum(n * n for n in lengths)
    if left <= LEAST_SHARE * whole or spread == 0.0:
        return 0.0
    together = math.fsum(n * r for n, r in zip(lengths, rewards, strict=True))
    return together / math.sqrt(spread * left)


def _centred(values: Sequence[float]) -> list[float]:
    mean = math.fsum(values) / len(values) if values else 0.0
    return [value - mean for value in values]
