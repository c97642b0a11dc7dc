"""What came of it: how content users were, visit by visit, and what the trial could say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from users import Visit

WINDOW = 40
"""Visits of which a point of the curve is the mean."""


@dataclass(slots=True)
class Bounds:
    """The trial after so many visits: the difference of the canary, and its bounds."""

    visits: int
    difference: float | None
    low: float
    high: float


@dataclass(slots=True)
class Story:
    first: list[Visit] = field(default_factory=list)
    second: list[Visit] = field(default_factory=list)
    trial: list[Visit] = field(default_factory=list)
    bounds: list[Bounds] = field(default_factory=list)
    state: str = ""

    def sentences(self) -> list[str]:
        canary = [visit for visit in self.trial if visit.side == "canary"]
        stable = [visit for visit in self.trial if visit.side == "stable"]
        return [
            f"{share(self.first):.0%} of {len(self.first)} users were content at first",
            f"{share(self.second):.0%} of {len(self.second)} after their words became a model",
            f"a worse version was shown to {len(canary)} users ({share(canary):.0%} content, the "
            f"others {share(stable):.0%}) and was {self.state} after {len(self.trial)} visits",
        ]

    def save(self, folder: Path) -> None:
        (folder / "story.json").write_text(json.dumps(asdict(self)))


def share(visits: Sequence[Visit]) -> float:
    return sum(visit.content for visit in visits) / len(visits) if visits else 0.0


def draw(story: Story, path: Path) -> None:
    """The curve as a picture (needs matplotlib: pip install 'strop[evidence]')."""
    import matplotlib.pyplot as plt

    figure, (above, below) = plt.subplots(1, 2, figsize=(11, 3.8))
    parts = {"first model": story.first, "after the users were heard": story.second}
    begun = 0
    for name, visits in parts.items():
        above.plot(*_means(visits, begun), label=name)
        begun += len(visits)
    for side, name in (("stable", "trial: the other half"), ("canary", "trial: the canary")):
        mine = [visit for visit in story.trial if visit.side == side]
        above.plot(*_means(mine, begun, len(story.trial) / max(len(mine), 1)), label=name)
    above.set(xlabel="visits", ylabel="share of users who are content", ylim=(0, 1),
              title=f"Content users (mean of {WINDOW} visits)")  # fmt: skip
    above.legend(frameon=False, fontsize=8)
    places = [one.visits for one in story.bounds]
    below.fill_between(places, [one.low for one in story.bounds],
                       [one.high for one in story.bounds], alpha=0.25, label="bounds")  # fmt: skip
    seen = [(one.visits, one.difference) for one in story.bounds if one.difference is not None]
    below.plot(*zip(*seen, strict=True), label="difference")
    below.axhline(0, color="black", linewidth=0.8)
    below.set(xlabel="visits of the trial", ylabel="canary less the other", ylim=(-1, 1),
              title=f"The canary is {story.state}")  # fmt: skip
    below.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _means(
    visits: Sequence[Visit], begun: int, each: float = 1.0
) -> tuple[list[float], list[float]]:
    window = min(WINDOW, max(len(visits), 1))
    ends = range(window, len(visits) + 1)
    return ([begun + end * each for end in ends],
            [share(visits[end - window : end]) for end in ends])  # fmt: skip
