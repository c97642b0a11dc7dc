"""A game as an environment: the policy is one player, and its opponent answers within a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from strop.engines.draws import DrawKey, seed_of, uniforms
from strop.errors import DataError, RecipeError, WorldError
from strop.recipe.train.environment import GameRecipe
from strop.rollout.dialogue import ChatWriting, PlainWriting, Writing
from strop.rollout.environment import Ask, FaultError, Observation, Said
from strop.rollout.games.game import PLIES, Boards, Game, drawn, named, over
from strop.rollout.games.league import chosen, read_league
from strop.rollout.games.opponents import Frozen, by_name, game_of
from strop.rollout.games.players import ModelPlayer, Player, RandomPlayer, ply_key, shown
from strop.rollout.games.standings import MET, Standings
from strop.text.chat.template import Tools
from strop.text.encode import Encoder, Tokenizer
from strop.text.script import as_messages, opened_by
from strop.types import Completion, Task, Text

SELF = "self"
SIDE = "side"
"""The column by which a task says which side the policy has."""

SIDES = ("first", "second")
"""What it may say."""


class Rules:
    """A recipe's game and opponents, looked at. In training a league's `standings` say how likely
    each is met.

    Raises `WorldError`, `ModelError`, `DataError` or `RecipeError` for what cannot be played.
    """

    def __init__(self, recipe: GameRecipe) -> None:
        self.recipe = recipe
        self.standings: Standings | None
        self.game = game_of(recipe.game)
        if recipe.league is None:
            met = by_name(recipe.opponents)
            self.standings = None
            self.opening = {name: 1 / len(met) for name in met}
            players = {name: one for name, one in met.items() if one != SELF}
        else:
            league = read_league(Path(recipe.league.file))
            if league.game != recipe.game:
                raise RecipeError(
                    "the league plays another game",
                    where=recipe.league.file,
                    fix="name its game",
                    key="rollout.environment.game",
                )
            league.expect_opponents(recipe.league.as_, "rollout.environment.league.as")
            self.standings = Standings(league, recipe.league.as_)
            self.opening = self.standings.opening
            players = {name: league.players[name] for name in self.opening}
        self.frozen = Frozen(self.game, players)

    def met(self, key: DrawKey) -> str:
        """The opponent of a game; a measurement meets the same ones whenever it is made."""
        learns = self.standings is not None and key.stream == "training"
        weights = self.standings.weights() if learns and self.standings else self.opening
        return chosen(weights, replace(key, prompt=f"{key.prompt}/opponent"))


class GameEnvironments:
    """Makes the games of a run, whose model reads `context` tokens."""

    tools: Tools = None
    rewards = True
    bounds: tuple[float, float] | None = (0.0, 1.0)

    def __init__(self, rules: Rules, tokenizer: Tokenizer, context: int) -> None:
        self.rules, self.tokenizer, self.context = rules, tokenizer, context

    def make(self, ask: Ask) -> GameEnvironment:
        return GameEnvironment(self, ask)

    def opponent(self, name: str, prompt: Text, player: int, ask: Ask) -> Player:
        """Who sits on the other side."""
        if name != SELF:
            return self.rules.frozen.seat(name, prompt, player, ask.request.sampling)
        encoder, where = Encoder(self.tokenizer), str(ask.request.prompt.task.origin)
        writing: Writing = (
            PlainWriting(encoder, where)
            if isinstance(prompt, str)
            else ChatWriting(encoder, None, where)
        )
        return ModelPlayer(
            self.rules.game, prompt, player, partial(self._policy_says, ask=ask, writing=writing)
        )

    async def _policy_says(
        self, said: Text, *, key: DrawKey, ask: Ask, writing: Writing
    ) -> Completion:
        """The policy's answer to what the other side reads; its draw is by `ask`."""
        messages = as_messages(said, role="user")
        text = writing.opening(messages)
        ids = writing.ids(text, first=True)
        if len(ids) >= self.context:
            raise WorldError(
                f"a game's boards fill the {self.context} tokens that the model reads",
                fix="show boards in fewer tokens, or take a model that reads more",
            )
        room = self.context - len(ids)
        return await ask(ids, opened=opened_by(messages, text), max_tokens=room)

    async def close(self) -> None:
        await self.rules.frozen.close()


class Rehearsals(GameEnvironments):
    """The same games against opponents who all move at random, so that no model is asked."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def opponent(self, name: str, prompt: Text, player: int, ask: Ask) -> Player:
        return RandomPlayer(self.rules.game)

    async def close(self) -> None:
        """Nothing was begun."""


class GameEnvironment:
    """One game.

    Side, opponent and opening are drawn for the task: its episodes of a step have them in common.
    What the opponent does on the way is drawn for the episode.
    """

    def __init__(self, shared: GameEnvironments, ask: Ask) -> None:
        self.shared, self.ask = shared, ask
        self.game: Game = shared.rules.game
        self.key = ask.request.key
        self.board: Boards = np.zeros(0, dtype=np.int8)
        self.side, self.ply, self.told = 0, 0, False
        self.opponent: Player | None = None
        self.ended = False

    async def reset(self, task: Task) -> Observation:
        key = task_key(self.key, task)
        chances = uniforms(key, 2)
        self.side = int(chances[0] < 0.5) if (at := _side(task)) is None else at
        name = self.shared.rules.met(key)
        self.opponent = self.shared.opponent(name, task.prompt, 1 - self.side, self.ask)
        self.board = self.game.reset([seed_of(key)])[0]
        start, length = self.board, int(chances[1] * (self.shared.rules.recipe.random_opening + 1))
        self.board = opened(self.game, start, length, key)
        facts = {f"{MET}{name}": 1.0, **await self._opponent_moves()}
        if self._over():  # the opening was lost before the policy could move
            self.board = start
            facts |= await self._opponent_moves()
        if self._over():
            raise WorldError(
                "a game was over before the policy could move", where=str(task.origin),
                fix="let games begin with boards on which both can move",
            )  # fmt: skip
        return self._shows(facts)

    async def step(self, said: Said) -> Observation:
        move = named(self.game, str(said.message.get("content") or ""))
        legal = self.game.legal(self.board[None])[0]
        if move is None or not legal[move]:
            return self._illegal(legal)
        self._make(move)
        facts = await self._opponent_moves()
        if not self._over():
            return self._shows(facts)
        self.ended = True
        worth = float(self.game.outcome(self.board[None])[0, self.side])
        facts["won" if worth > 0 else "lost" if worth < 0 else "drawn"] = 1.0
        return Observation(done=True, reward=(1 + worth) / 2, facts=facts)

    async def final_reward(self) -> float | None:
        """A game that the limits cut short is lost."""
        return None if self.ended else 0.0

    async def close(self) -> None:
        self.opponent = None

    def _over(self) -> bool:
        return bool(over(self.game, self.board[None])[0])

    def _make(self, move: int) -> None:
        self.board = self.game.step(self.board[None], np.array([move]))[0]
        self.ply += 1
        if self.ply > PLIES:
            raise FaultError(f"the game did not end within {PLIES} moves")

    async def _opponent_moves(self) -> dict[str, float]:
        """Until it is the policy's turn or the game is over; an illegal move of its is replaced by
        one at random, so that nothing is earned by it."""
        assert self.opponent is not None
        illegal = 0.0
        while not self._over() and int(self.game.player(self.board[None])[0]) != self.side:
            key = ply_key(self.key, self.ply)
            move = await self.opponent.move(self.board, key)
            if move is None:
                illegal += 1
                move = drawn(np.flatnonzero(self.game.legal(self.board[None])[0]).tolist(), key)
            self._make(move)
        return {"opponent_illegal": illegal} if illegal else {}

    def _shows(self, facts: Mapping[str, float]) -> Observation:
        text = shown(self.game, self.board, self.side)
        return Observation(({"role": "user", "content": text},), facts=facts)

    def _illegal(self, legal: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Observation:
        if self.shared.rules.recipe.illegal == "told" and not self.told:
            self.told = True
            names = ", ".join(self.game.moves[n] for n in np.flatnonzero(legal).tolist())
            text = f"Not a legal move. Legal moves: {names}\n"
            text += shown(self.game, self.board, self.side)
            return Observation(({"role": "user", "content": text},), facts={"illegal": 1.0})
        self.ended = True
        return Observation(done=True, reward=0.0, facts={"illegal": 1.0, "lost": 1.0})


def task_key(key: DrawKey, task: Task) -> DrawKey:
    """The draw key that all episodes of a task have in common in a step."""
    name = f"game/{Path(task.origin.path).name}:{task.origin.line}"
    return replace(key, prompt=name, index=0)


def opened(game: Game, board: Boards, length: int, key: DrawKey) -> Boards:
    """A board after so many moves at random, fewer where the game would be over."""
    for ply in range(length):
        options = np.flatnonzero(game.legal(board[None])[0]).tolist()
        move = drawn(options, replace(key, prompt=f"{key.prompt}/opening {ply}"))
        after = game.step(board[None], np.array([move]))
        if over(game, after)[0]:
            return board
        board = after[0]
    return board


def _side(task: Task) -> int | None:
    """Which player the task's column `side` makes of the policy, if there is one."""
    said = task.columns.get(SIDE)
    if said is None:
        return None
    if said not in SIDES:
        raise DataError(
            f"the column `{SIDE}` says {said!r}",
            where=str(task.origin),
            fix="write first or second",
        )
    return SIDES.index(said)
