"""Who is met next within a run: what its games so far say of each opponent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from strop.episodes import Episode
from strop.errors import UsageError
from strop.rollout.games.league import League, chance_of, prioritised
from strop.types import FAILED, ScoredGroup

MET = "met/"
"""Begins the name of the fact that says whom an episode was played against."""

DECAY = 0.99
"""What an earlier game against an opponent counts for after a further one, as in the payoffs of
AlphaStar's published pseudocode: the policy has changed since."""


class Standings:
    """A league's games of one of its players, and those of the run after them.

        p = (won + PRIOR / 2) / (played + PRIOR)        weight = (1 - p)^2

    A draw is half a win; each game of the run lets the earlier ones against that opponent count
    `DECAY` times what they did. Groups are noted in their order, so that the weights follow from
    the run's seed, whatever the number of processes.
    """

    def __init__(self, league: League, player: str) -> None:
        self.opening = league.weights(player)
        """The weights of the league's file, which measurements keep to."""
        tallies = {name: league.tally(player, name) for name in self.opening}
        self._won = {name: won for name, (won, _) in tallies.items()}
        self._played = {name: played for name, (_, played) in tallies.items()}

    def chance(self, other: str) -> float:
        """How often this opponent is beaten."""
        return chance_of(self._won[other], self._played[other])

    def weights(self) -> dict[str, float]:
        """How likely each opponent is met."""
        return prioritised({name: self.chance(name) for name in self.opening})

    def note(self, groups: Sequence[ScoredGroup]) -> None:
        """What games came to; one that failed by nobody's doing says nothing."""
        for other, score in _games(groups):
            self._won[other] = DECAY * self._won[other] + score
            self._played[other] = DECAY * self._played[other] + 1

    def metrics(self) -> dict[str, float]:
        weights = self.weights()
        rates = {f"league/win_rate/{name}": self.chance(name) for name in weights}
        return rates | {f"league/weight/{name}": weight for name, weight in weights.items()}

    def state(self) -> dict[str, Any]:
        return {name: [self._won[name], self._played[name]] for name in self.opening}

    def load(self, state: Mapping[str, Any]) -> None:
        if state.keys() != self.opening.keys():
            raise UsageError(
                f"the checkpoint knows the opponents {', '.join(state)}, and the league has "
                f"{', '.join(self.opening)}",
                fix="resume with the league's file that the run was started with",
            )
        self._won = {name: float(won) for name, (won, _) in state.items()}
        self._played = {name: float(played) for name, (_, played) in state.items()}


def _games(groups: Sequence[ScoredGroup]) -> Iterator[tuple[str, float]]:
    """(opponent, score) of each game that was played."""
    for group in groups:
        for answer in group.rollout.completions:
            if isinstance(answer, Episode) and answer.finish not in FAILED and answer.facts:
                assert answer.reward is not None, "a game that ends has a score"
                (met,) = (name for name in answer.facts if name.startswith(MET))
                yield met.removeprefix(MET), answer.reward
