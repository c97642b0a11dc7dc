"""A league: players that stay as they are, what they made of each other, and who is met next.

Matches are prioritised as in AlphaStar (Vinyals et al. 2019, Nature 575:350-354, "prioritized
fictitious self-play"): an opponent is drawn in proportion to (1 - p)^2, p being the chance to beat
it, so that those who still win are met most. Ratings are Elo's, from Bradley and Terry's model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from strop.data.json_text import Loc, lines_of, parsed
from strop.engines.draws import DrawKey, uniforms
from strop.errors import DataError, RecipeError, UsageError
from strop.files import read_text, write_json
from strop.recipe.base import Strict
from strop.recipe.loading.load import Source, validate
from strop.recipe.train.game import FrozenPlayerRecipe, GameName
from strop.stats.bradley_terry import bradley_terry
from strop.text.nearest import did_you_mean

ELO = 400 / math.log(10)
"""Elo's points in a logit."""

PRIOR = 2.0
"""Drawn games that count as played before any was: a win that was seen once is not certain."""


def chance_of(won: float, played: float) -> float:
    """How often an opponent is beaten, from games and `PRIOR` draws."""
    return (won + PRIOR / 2) / (played + PRIOR)


def prioritised(chances: Mapping[str, float]) -> dict[str, float]:
    """How likely each opponent is drawn: in proportion to (1 - p)^2, p the chance to beat it."""
    raw = {name: (1 - chance) ** 2 for name, chance in chances.items()}
    return {name: weight / sum(raw.values()) for name, weight in raw.items()}


FORM = '{"game": "tic_tac_toe", "players": {"random": "random"}, "games": []}'


@dataclass(frozen=True, slots=True)
class Rating:
    """`Rating(elo=212.0, low=170.0, high=254.0)`: points above another player, with their 95 %
    interval."""

    elo: float
    low: float
    high: float


class Played(Strict):
    """One game: `score` is 1, 0.5 or 0 for `first`, who moved first. The two games of a `pair`
    began alike, with the sides changed, and are one observation."""

    first: str
    second: str
    score: float = Field(ge=0, le=1)
    pair: int

    @model_validator(mode="after")
    def _two_play(self) -> Self:
        if self.first == self.second:
            raise ValueError(f"{self.first!r} cannot play a game against itself")
        return self


def _of_members(game: Played, info: ValidationInfo) -> Played:
    """The game, if the league has its players."""
    players: dict[str, Any] | None = info.data.get("players")
    if players is None:
        return game  # they are what is wrong
    for name in (game.first, game.second):
        if name not in players:
            hint = did_you_mean(name, players)
            raise ValueError(
                f"it was played by {name!r}, who is no player: {hint}there are {', '.join(players)}"
            )
    return game


class League(Strict):
    """Everything that a league is, as its file holds it: `{"game": "tic_tac_toe", "players":
    {"random": "random", "sft": {"model": "runs/sft/final"}}, "games": [{"first": "sft", "second":
    "random", "score": 1.0, "pair": 0}]}`."""

    game: GameName
    players: dict[str, FrozenPlayerRecipe]
    games: list[Annotated[Played, AfterValidator(_of_members)]] = Field(default_factory=list)

    def joined(self, games: Sequence[Played]) -> League:
        """The league after these games."""
        return self.model_copy(update={"games": [*self.games, *games]})

    def tally(self, player: str, other: str) -> tuple[float, float]:
        """What `player` won of its games against `other`, a draw being half of one, and how many
        they were."""
        won, played = 0.0, 0.0
        for game in self.games:
            if (game.first, game.second) == (player, other):
                won, played = won + game.score, played + 1
            elif (game.second, game.first) == (player, other):
                won, played = won + 1 - game.score, played + 1
        return won, played

    def chance(self, player: str, other: str) -> float:
        """How often `player` beats `other`."""
        return chance_of(*self.tally(player, other))

    def expect_opponents(self, player: str, key: str | None = None) -> None:
        """Raise `UsageError`, about this key of a recipe, for a name that is no player, or the only
        one."""
        if player in self.players and len(self.players) > 1:
            return
        hint = did_you_mean(player, self.players)
        raise UsageError(
            f"{player!r} has no opponents in the league of {', '.join(self.players)}",
            fix=f"{hint}name one of its players, of which there are at least two",
            key=key,
        )

    def weights(self, player: str) -> dict[str, float]:
        """How likely each other player is drawn as the opponent of `player`. Raises `UsageError`
        for a name that is no player, or the only one."""
        self.expect_opponents(player)
        return prioritised({n: self.chance(player, n) for n in self.players if n != player})

    def ratings(self, anchor: str) -> dict[str, Rating]:
        """Everybody's points above `anchor`, the advantage of moving first taken out. Raises
        `DataError` where the games do not tell them."""
        try:
            fit = bradley_terry(
                [g.first for g in self.games],
                [g.second for g in self.games],
                [g.score for g in self.games],
                {"first": [1.0] * len(self.games)},
                [(*sorted((g.first, g.second)), g.pair) for g in self.games],
            )
        except ValueError as error:
            raise DataError(f"the league's games give no ratings: {error}") from None
        if set(fit.strengths) != set(self.players):
            missing = sorted(set(self.players) - set(fit.strengths))
            raise DataError(f"{', '.join(missing)} played no game of the league")
        found = {}
        for name in self.players:
            of = fit.chance(name, anchor)
            found[name] = Rating(_elo(of.estimate), _elo(of.low), _elo(of.high))
        return found

    def save(self, path: Path) -> None:
        write_json(path, self.plain())


def read_league(path: Path) -> League:
    """The league of a file; its models' folders are relative to it. Raises `DataError` that names
    the line of each mistake."""
    text = read_text(path, DataError)
    _expect_one_of_each(text, path)
    value = parsed(text, str(path), fix="mend the file")
    if not isinstance(value, dict):
        raise DataError("a league is an object", where=f"{path}:1", fix=f"write {FORM}")
    try:
        return validate(League, Source(path, value, dict(lines_of(text))))
    except RecipeError as error:
        raise DataError(error.problem, where=error.where, fix=error.fix) from None


def _expect_one_of_each(text: str, path: Path) -> None:
    """Raise `DataError` for a name that is given twice; the last would count in silence."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return  # it is told what is wrong with it later
    lines: dict[Loc, int] = {}
    for loc, line in lines_of(text):
        if loc in lines:
            what = "the player" if loc[:-1] == ("players",) else "the key"
            raise DataError(
                f"{what} {loc[-1]!r} is there twice, first in line {lines[loc]}",
                where=f"{path}:{line}",
                fix="give one of them another name, or drop it",
            )
        lines[loc] = line


def chosen(weights: Mapping[str, float], key: DrawKey) -> str:
    """One of the names, in proportion to its weight."""
    names = list(weights)
    steps = np.cumsum([weights[name] for name in names])
    place = int(np.searchsorted(steps, uniforms(key, 1)[0] * steps[-1], side="right"))
    return names[min(place, len(names) - 1)]


def _elo(chance: float) -> float:
    if chance in (0.0, 1.0):
        return math.copysign(math.inf, chance - 0.5)
    return ELO * math.log(chance / (1 - chance))
