"""Players of the user's own, each in a process of its own."""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from strop.engines.draws import DrawKey
from strop.errors import WorldError
from strop.recipe.train.game import OwnPlayerRecipe
from strop.rollout.environment import FaultError
from strop.rollout.games.game import Boards, Game, drawn, random_games
from strop.rollout.games.own.made import BrokenRuleError, expect, refused
from strop.sandbox.workers import Reply, Workers

LOADING = 300.0
"""Seconds that importing the user's file and making the player may take."""

ENDS_WITHIN = 10.0
"""Seconds for which those who waited for the process are heard, once it was ended."""

Asked = tuple[Boards, asyncio.AbstractEventLoop, "asyncio.Future[list[int]]"]


def own_player(recipe: OwnPlayerRecipe, game: Game) -> OwnPlayer:
    """The player of a user's class, made without arguments. Raises `WorldError` for one whose
    `best` does not give legal moves, the same ones whenever it is asked about a board."""
    player = OwnPlayer(recipe, game)
    try:
        player.look()
        for boards, _ in random_games(game, [0, 1], DrawKey(0, "selfcheck", prompt="player")):
            for board in boards[:-1]:
                first, again = player.best(board), player.best(board)
                expect(first == again, f"best gives {first}, and {again} when asked again")
    except BrokenRuleError as error:
        player.close()
        raise refused(Path(recipe.file), f"{recipe.class_}: {error}") from None
    except BaseException:
        player.close()
        raise
    return player


class OwnPlayer:
    """Makes any of the moves that a user's class says are best.

    It is asked one board at a time, by a thread that waits for its process, so that a slow one
    holds up nobody's turn but its own. A call that takes longer than `call_seconds`, raises or ends
    the process is a `FaultError`; the next one finds a new process where the old one hung or ended.
    """

    def __init__(self, recipe: OwnPlayerRecipe, game: Game) -> None:
        self.recipe, self.game = recipe, game
        command = [sys.executable, "-m", "strop.rollout.games.own.worker", recipe.file,
                   recipe.class_]  # fmt: skip
        self._workers = Workers(
            command, count=1, starts_within=LOADING, shows_errors=True, grouped=True
        )
        weakref.finalize(self, self._workers.close).atexit = False  # they end by themselves then
        self._asked: SimpleQueue[Asked | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Raise `WorldError` for a class that cannot be asked."""
        (reply,) = self._workers.ask([{"look": True}], LOADING)
        if reply.failed is not None:
            raise WorldError(
                f"the process that imports the file ended, or did not finish within {LOADING:g} s",
                where=self.recipe.file,
                fix="import the file by hand: python FILE",
            )
        if "refused" in reply.answer:
            problem, where, fix = reply.answer["refused"]
            raise WorldError(problem, where=where, fix=fix)

    async def move(self, board: Boards, key: DrawKey) -> int | None:
        if self._thread is None:
            # a daemon, because the end of the program waits for all other threads
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[int]] = loop.create_future()
        self._asked.put((board, loop, future))
        return drawn(await future, key)

    def best(self, board: Boards) -> list[int]:
        """What the class says of a board [S], within `call_seconds`. Raises `BrokenRuleError` where
        that is no list of legal moves."""
        order = {"board": board.tobytes().hex(), "type": board.dtype.str}
        (reply,) = self._workers.ask([order], self.recipe.call_seconds)
        said = self._said(reply)
        legal = np.flatnonzero(self.game.legal(board[None])[0]).tolist()
        expect(
            isinstance(said, list) and bool(said) and set(said) <= set(legal),
            f"best gives {said}, and has to give one or more of the legal moves {legal} (a list of "
            "their numbers)",
        )
        return sorted(set(said))

    def _said(self, reply: Reply) -> Any:
        """Its moves, or the text of what else it gives."""
        if reply.slow:
            raise BrokenRuleError(
                f"best gives no answer within {self.recipe.call_seconds:g} s (`call_seconds`)"
            )
        if reply.failed is not None:
            raise BrokenRuleError("best ends its process")
        if "failed" in reply.answer:
            raise BrokenRuleError(f"best raises {reply.answer['failed']}")
        if "refused" in reply.answer:  # the file was changed since it was looked at
            raise BrokenRuleError(f"its new process: {reply.answer['refused'][0]}")
        return reply.answer.get("moves", reply.answer.get("odd"))

    def _work(self) -> None:
        """Answer those who ask, until it is closed."""
        while (asked := self._asked.get()) is not None:
            board, loop, future = asked
            if future.done():
                continue  # its episode has no time left
            try:
                moves = self.best(board)
            except (BrokenRuleError, FaultError) as error:
                where = f"{self.recipe.file}, {self.recipe.class_}"
                fault = error if isinstance(error, FaultError) else FaultError(f"{where}: {error}")
                loop.call_soon_threadsafe(_fail, future, fault)
            else:
                loop.call_soon_threadsafe(_settle, future, moves)

    def close(self) -> None:
        """End its process, whatever it is at."""
        self._workers.end()
        self._asked.put(None)
        if self._thread is not None:
            self._thread.join(ENDS_WITHIN)
        if self._thread is None or not self._thread.is_alive():
            self._workers.close()


def _settle(future: asyncio.Future[list[int]], moves: list[int]) -> None:
    if not future.done():
        future.set_result(moves)


def _fail(future: asyncio.Future[list[int]], fault: FaultError) -> None:
    if not future.done():
        future.set_exception(fault)
