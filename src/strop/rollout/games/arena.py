"""The players of a league play each other."""

from __future__ import annotations

import asyncio
import itertools
import warnings
from dataclasses import replace

import numpy as np

from strop.engines.draws import DrawKey, seed_of
from strop.engines.engine import Sampling
from strop.rollout.environment import FaultError
from strop.rollout.games.environment import opened
from strop.rollout.games.game import PLIES, Boards, Game, over
from strop.rollout.games.league import League, Played
from strop.rollout.games.opponents import Frozen, game_of
from strop.rollout.games.players import Player, ply_key
from strop.types import Text


def play(
    league: League, prompt: Text, sampling: Sampling, *, pairs: int, seed: int, opening: int = 0
) -> League:
    """Everybody meets everybody in so many pairs of games more: the two games of a pair begin with
    the same `opening` moves at random, and the sides are changed.

    Models read the prompt and answer with this sampling. One that says no legal move has lost. A
    game that fails by the fault of rules or a player of the user's own is left out, with a warning.
    """
    return asyncio.run(_play(league, prompt, sampling, (pairs, seed, opening)))


async def _play(
    league: League, prompt: Text, sampling: Sampling, how: tuple[int, int, int]
) -> League:
    pairs, seed, opening = how
    game = game_of(league.game)
    frozen = Frozen(game, league.players)
    before = max((played.pair + 1 for played in league.games), default=0)

    async def one(names: tuple[str, str], pair: int) -> Played | None:
        first, second = names
        key = DrawKey(seed, "eval", prompt="/".join(sorted(names)), index=pair)
        seats = [frozen.seat(name, prompt, n, sampling) for n, name in enumerate(names)]
        try:
            board = opened(game, game.reset([seed_of(key)])[0], opening, key)
            score = await match(game, board, seats, replace(key, prompt=f"{first}/{second}"))
        except FaultError as error:
            warnings.warn(f"a game of {first} against {second} failed, so it counts for nothing: "
                          f"{error}", stacklevel=1)  # fmt: skip
            return None
        return Played(first=first, second=second, score=score, pair=pair)

    try:
        games = await asyncio.gather(*[
            one(names, before + number)
            for number in range(pairs)
            for names in itertools.permutations(league.players, 2)
        ])  # fmt: skip
    finally:
        await frozen.close()
    return league.joined([game for game in games if game is not None])


async def match(game: Game, board: Boards, seats: list[Player], key: DrawKey) -> float:
    """What a game from this board is worth to player 0: 1, 0.5 or 0."""
    for ply in range(PLIES + 1):
        if over(game, board[None])[0]:
            return (1 + float(game.outcome(board[None])[0, 0])) / 2
        player = int(game.player(board[None])[0])
        move = await seats[player].move(board, ply_key(key, ply))
        if move is None:
            return float(player)
        board = game.step(board[None], np.array([move]))[0]
    raise FaultError(f"the game did not end within {PLIES} moves")
