"""Rules of the user's own that fail while they are played: the episode is lost, not the run."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from strop.engines.draws import DrawKey
from strop.engines.engine import Sampling, prompted_tasks, requests_of
from strop.episodes import Episode
from strop.errors import WorldError
from strop.recipe.train.environment import EnvironmentRecipe, GameRecipe
from strop.rollout.environments import way_of
from strop.rollout.games.arena import play
from strop.rollout.games.league import League
from strop.rollout.games.own.game import own_game
from strop.rollout.play import Player
from strop.types import Origin, Task
from tests.support.episodes import ScriptedEngine

GAMES = '''
import sys
import numpy as np

class Nim:
    """Stones are taken by turns; who takes the last one wins."""
    moves = ("1", "2", "3")
    def reset(self, seeds): return np.array([[7, 0]] * len(seeds), dtype=np.int8)
    def player(self, boards): return boards[:, 1].astype(np.int64)
    def legal(self, boards): return boards[:, :1] >= np.array([[1, 2, 3]])
    def step(self, boards, moves):
        return np.stack([boards[:, 0] - moves - 1, 1 - boards[:, 1]], axis=1).astype(np.int8)
    def outcome(self, boards):
        won = np.where(boards[:, 1] == 1, 1.0, -1.0)
        won[boards[:, 0] > 0] = np.nan
        return np.stack([won, -won], axis=1)
    def show(self, board, player): return f"{board[0]} stones"

def breaking(method, *, exits=False, gives=None):
    """Nim, one method of which fails once the trial is over (`Nim.tried`)."""
    def broken(self, *given):
        if not Nim.tried:
            return getattr(Nim, method)(self, *given)
        if exits:
            sys.exit(4)
        if gives is not None:
            return gives(*given)
        raise KeyError("a rare board")
    return type(method, (Nim,), {method: broken})

Nim.tried = False
RaisesReset, RaisesPlayer, RaisesLegal = map(breaking, ("reset", "player", "legal"))
RaisesStep, RaisesOutcome, RaisesShow = map(breaking, ("step", "outcome", "show"))
ExitsStep = breaking("step", exits=True)
Third = breaking("player", gives=lambda boards: np.full(len(boards), 2))
Stuck = breaking("legal", gives=lambda boards: np.zeros((len(boards), 3), dtype=bool))
Few = breaking("legal", gives=lambda boards: np.ones((len(boards), 2), dtype=bool))
Wide = breaking("step", gives=lambda boards, moves: np.zeros((len(boards), 5), dtype=np.int8))
Generous = breaking("outcome", gives=lambda boards: np.full((len(boards), 2), 3.0))
Wordless = breaking("show", gives=lambda board, player: None)
Endless = breaking("step", gives=lambda boards, moves: boards.copy())

class Odd(Nim):
    def show(self, board, player): return f"{board[0]} \\ud800 stones"

class Bad(Nim):
    def show(self, board, player):
        raise KeyError("no board")
'''
SOLVED = """
class Solved(Nim):
    def player(self, boards):
        if len(boards) == 1 and boards[0, 0] == 7: raise KeyError("a board alone")
        return super().player(boards)
"""
TIRES = """
class Tires(Nim):
    asked = 0
    def player(self, boards):
        self.asked += len(boards) == 1
        if len(boards) == self.asked == 1: raise KeyError("the first board alone")
        return super().player(boards)
"""
PROMPT = [{"role": "user", "content": "Nim.\n"}]


@pytest.fixture
def games(tmp_path: Path) -> Path:
    file = tmp_path / "own_rules.py"
    file.write_text(GAMES)
    return file


def recipe(file: Path, name: str, **changes: Any) -> GameRecipe:
    given = {"game": {"file": str(file), "class": name}, "opponents": ["random"], **changes}
    made = TypeAdapter(EnvironmentRecipe).validate_python(given)
    assert isinstance(made, GameRecipe)
    return made


def tried(file: Path) -> None:
    """The trial is over."""
    sys.modules[f"strop_user_{file.stem}"].Nim.tried = True  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def modules_as_before() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def played(tokenizer: Any, made: GameRecipe, file: Path, *, prompt: Any = PROMPT
           ) -> tuple[list[Episode], ScriptedEngine]:  # fmt: skip
    """A game of a policy that always takes one stone."""
    engine = ScriptedEngine(tokenizer, lambda prompt, request: "1", end="<|end|>")
    way = way_of(made)
    tried(file)
    task = Task(copy.deepcopy(prompt), {"side": "second"}, Origin("t.jsonl", 5))
    asked = prompted_tasks(tokenizer, [task]), Sampling(max_tokens=20), DrawKey(3, "training", 2), 1
    player = Player(engine, way.play(tokenizer, 4096), made)
    try:
        return [episode for _, episode in player.generate(requests_of(*asked))], engine
    finally:
        player.close()


FAULTS = {
    "RaisesReset": "reset: KeyError: 'a rare board'",
    "RaisesPlayer": "player: KeyError: 'a rare board'",
    "RaisesLegal": "legal: KeyError: 'a rare board'",
    "RaisesStep": "step: KeyError: 'a rare board'",
    "RaisesOutcome": "outcome: KeyError: 'a rare board'",
    "RaisesShow": "show: KeyError: 'a rare board'",
    "ExitsStep": "step: SystemExit: 4",
    "Third": "player: a player is neither 0 nor 1",
    "Stuck": "legal: a game that is not over has no legal move",
    "Few": r"legal: legal gives booleans \[boards, 3 moves\]",
    "Wide": "step: step gives boards like those that it is given",
    "Generous": r"outcome: an outcome is \[3.0, 3.0\]: a win of one",
    "Wordless": "show: show gives no text",
    "Endless": "the game did not end within 1000 moves",
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_rules_costs_the_episode(tokenizer: Any, games: Path, name: str) -> None:
    said = FAULTS[name] if name == "Endless" else rf"own_rules.py, {name}\.{FAULTS[name]}"
    with pytest.warns(UserWarning, match=f"t.jsonl:5: an environment failed.*{said}"):
        (episode,), _ = played(tokenizer, recipe(games, name), games)
    assert (episode.finish, episode.reward) == ("error", None)


def test_what_it_shows_is_made_readable_for_both_sides(tokenizer: Any, games: Path) -> None:
    (episode,), engine = played(tokenizer, recipe(games, "Odd", opponents=["self"]), games)
    assert episode.finish == "stop"
    assert len(engine.asked) == 7  # one stone each
    assert any("? stones" in str(m["content"]) for m in episode.messages if m["role"] == "user")


def test_a_game_that_fails_in_the_arena_counts_for_nothing(games: Path) -> None:
    league = League.model_validate({
        "game": {"file": str(games), "class": "Nim"},
        "players": {"one": "random", "two": "random"},
    })  # fmt: skip
    assert len(play(league, "", Sampling(), pairs=2, seed=1).games) == 4
    games.write_text(GAMES + TIRES)
    faulty = league.model_copy(update={"game": recipe(games, "Tires").game})
    with pytest.warns(UserWarning, match=r"one against two failed.*Tires\.player: KeyError"):
        found = play(faulty, "", Sampling(), pairs=1, seed=1)
    assert [(game.first, game.second) for game in found.games] == [("two", "one")]


def test_a_game_that_fails_before_the_run_is_refused(games: Path) -> None:
    """Its trial never asks whose turn it is on the first board alone; a solver does."""
    games.write_text(GAMES + SOLVED)
    for name, said in (
        ("Solved", r"own_rules.py, Solved\.player: KeyError: 'a board alone'"),
        ("Bad", "Bad fails in a game at random: KeyError: 'no board'"),
    ):
        with pytest.raises(WorldError, match=said):
            way_of(recipe(games, name, opponents=["perfect"]))


def test_a_game_imports_its_neighbour(tmp_path: Path) -> None:
    folder = tmp_path / "far"
    folder.mkdir()
    (folder / "strop_rules.py").write_text(GAMES)
    (folder / "game.py").write_text("from strop_rules import Nim\nclass Mine(Nim): pass\n")
    assert own_game(folder / "game.py", "Mine").moves == ("1", "2", "3")
