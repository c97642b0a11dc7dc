"""Who can play a game: at random, perfectly, by search, and models."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np

from strop.engines.draws import DrawKey
from strop.rollout.games.alpha_beta import AlphaBeta
from strop.rollout.games.game import Boards, Game, drawn, named
from strop.rollout.games.solved import Solver
from strop.types import Completion, Message, Text


class Player(Protocol):
    """One side of one game."""

    async def move(self, board: Boards, key: DrawKey) -> int | None:
        """Its move on a board [S] on which it is its turn, drawn by the key; `None` where what it
        said is no legal move."""


class RandomPlayer:
    """Makes any legal move."""

    def __init__(self, game: Game) -> None:
        self.game = game

    async def move(self, board: Boards, key: DrawKey) -> int | None:
        return drawn(np.flatnonzero(self.game.legal(board[None])[0]).tolist(), key)


class BestPlayer:
    """Makes any of the moves that a solver or a search says are best."""

    def __init__(self, solver: Solver | AlphaBeta) -> None:
        self.solver = solver

    async def move(self, board: Boards, key: DrawKey) -> int | None:
        return drawn(self.solver.best(board).tolist(), key)


class Say(Protocol):
    """Draws a model's answer to a conversation."""

    async def __call__(self, said: Text, *, key: DrawKey) -> Completion: ...


class ModelPlayer:
    """A model that is told the boards as its own conversation, as the policy is.

    It reads the task's prompt and the board, as player `seat` sees it, then its own answers and the
    boards that came of them.
    """

    def __init__(self, game: Game, prompt: Text, seat: int, say: Say) -> None:
        self.game, self.seat, self.say = game, seat, say
        self.said: Text = prompt

    async def move(self, board: Boards, key: DrawKey) -> int | None:
        self.said = heard(self.said, shown(self.game, board, self.seat))
        completion = await self.say(self.said, key=key)
        if isinstance(self.said, str):
            self.said += completion.text
        else:
            self.said = [*self.said, {"role": "assistant", "content": completion.text}]
        move = named(self.game, completion.text)
        legal = move is not None and bool(self.game.legal(board[None])[0, move])
        return move if legal else None


def shown(game: Game, board: Boards, seat: int) -> str:
    """What a model is told of a board."""
    return f"{game.show(board, seat)}\n"


def heard(said: Text, text: str) -> Text:
    """A conversation with a user's next words. Words after a user's are one message with them."""
    if isinstance(said, str):
        return said + text
    last = said[-1]
    if last["role"] == "user" and isinstance(last.get("content"), str):
        return [*said[:-1], {**last, "content": last["content"] + text}]
    message: Message = {"role": "user", "content": text}
    return [*said, message]


def ply_key(key: DrawKey, ply: int) -> DrawKey:
    """The draw key of a game's move, apart from those of what the policy says."""
    return replace(key, prompt=f"{key.prompt}/ply {ply}")
