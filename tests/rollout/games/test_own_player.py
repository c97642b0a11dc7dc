"""Opponents of the user's own: they play as a class says, and a broken one is told or costs its
game."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from strop.engines.draws import DrawKey
from strop.engines.engine import Sampling, prompted_tasks, requests_of
from strop.episodes import Episode
from strop.errors import WorldError
from strop.recipe.train.environment import EnvironmentRecipe, GameRecipe
from strop.rollout.environments import way_of
from strop.rollout.games.own import own_player
from strop.rollout.games.tic_tac_toe import TicTacToe
from strop.rollout.play import Player
from strop.train.rundir.directory import environment_files
from strop.types import Origin, Task
from tests.support.episodes import ScriptedEngine

SOLVERS = '''
from strop.rollout.games.solved import Solver
from strop.rollout.games.tic_tac_toe import TicTacToe

class Solved:
    def __init__(self): self.solver = Solver(TicTacToe())
    def best(self, board): return self.solver.best(board)

class Last:
    def best(self, board): return [int((board == 0).nonzero()[0][-1])]

class Spoils(Last):
    def best(self, board):
        found = super().best(board)
        board[:] = 1
        return found

class Tires:
    """Gives up one game: it is asked about an empty board twice in both games of its trial."""
    games = 0
    def best(self, board):
        Tires.games += int((board > 0).sum() == 0)
        if Tires.games == 6 and not board.any():
            raise RuntimeError("worn out")
        return [int((board == 0).nonzero()[0][-1])]

class Cheats:
    def best(self, board): return [0]

class Silent:
    def best(self, board): return []

class Names:
    def best(self, board): return ["1"]

class Fickle:
    asked = 0
    def best(self, board):
        self.asked += 1
        free = (board == 0).nonzero()[0]
        return [int(free[self.asked % len(free)])]

class Mute: ...
'''


@pytest.fixture
def solvers(tmp_path: Path) -> Path:
    file = tmp_path / "solver.py"
    file.write_text(SOLVERS)
    return file


def against(opponent: Any, **changes: Any) -> GameRecipe:
    given = {"game": "tic_tac_toe", "opponents": [opponent], **changes}
    made = TypeAdapter(EnvironmentRecipe).validate_python(given)
    assert isinstance(made, GameRecipe)
    return made


def played(tokenizer: Any, recipe: GameRecipe, side: str = "second", tasks: int = 1
           ) -> list[Episode]:  # fmt: skip
    """Games of a policy that takes the first free place."""

    def first_free(prompt: str, request: Any) -> str:
        return next(sign for sign in "".join(prompt.splitlines()[-4:]) if sign.isdigit())

    prompt = [{"role": "user", "content": "?\n"}]
    rows = [Task(prompt, {"side": side}, Origin("t.jsonl", n + 1)) for n in range(tasks)]
    asked = prompted_tasks(tokenizer, rows), Sampling(max_tokens=20), DrawKey(3, "training", 2), 1
    player = Player(
        ScriptedEngine(tokenizer, first_free, end="<|end|>"),
        way_of(recipe).play(tokenizer, 4096), recipe,
    )  # fmt: skip
    try:
        return [one for _, one in sorted(player.generate(requests_of(*asked)), key=lambda p: p[0])]
    finally:
        player.close()


def said_by_the_world(episode: Episode) -> list[str]:
    return [m["content"] for m in episode.messages if m["role"] == "user"]


def test_it_makes_the_moves_that_it_names(tokenizer: Any, solvers: Path) -> None:
    """It takes 9, 8, then 7, which fills the lowest row; the policy takes 1 and 2."""
    (episode,) = played(tokenizer, against({"file": str(solvers), "class": "Last"}))
    assert said_by_the_world(episode) == ["X23\n456\n7OO\n"]
    assert (episode.reward, episode.facts["lost"]) == (0.0, 1.0)


def test_a_board_that_it_writes_on_is_its_own(tokenizer: Any, solvers: Path) -> None:
    kept, spoilt = (
        played(tokenizer, against({"file": str(solvers), "class": name}))[0].messages
        for name in ("Last", "Spoils")
    )
    assert kept == spoilt


def test_of_several_best_moves_one_is_drawn_as_for_any_player(
    tokenizer: Any, solvers: Path
) -> None:
    own, known = (
        played(tokenizer, against(one, random_opening=4), "first", tasks=12)
        for one in ({"file": str(solvers), "class": "Solved"}, "perfect")
    )
    assert [e.messages for e in own] == [e.messages for e in known]
    assert len({str(e.messages) for e in own}) > 1


def test_what_it_raises_costs_its_game_alone(tokenizer: Any, solvers: Path) -> None:
    recipe = against({"file": str(solvers), "class": "Tires"})
    with pytest.warns(UserWarning, match="Tires: RuntimeError: worn out"):
        episodes = played(tokenizer, recipe, tasks=3)
    assert sorted(episode.finish for episode in episodes) == ["error", "stop", "stop"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Nobody", "no class 'Nobody'"),
        ("Mute", "Mute has no method best"),
        ("Cheats", r"best gives \[0\], and has to give one or more of the legal moves"),
        ("Silent", r"best gives \[\], and has to"),
        ("Names", r"best gives \['1'\], and has to give .* \(their numbers\)"),
        ("Fickle", "when asked again"),
    ],
)
def test_a_class_that_is_no_player_is_refused(solvers: Path, name: str, said: str) -> None:
    with pytest.raises(WorldError, match=said):
        way_of(against({"file": str(solvers), "class": name}))


def test_a_players_file_is_an_input_of_the_run(solvers: Path) -> None:
    recipe = against({"file": str(solvers), "class": "Last"})
    (before,) = environment_files(recipe)
    solvers.write_text(SOLVERS + "\n")
    (after,) = environment_files(recipe)
    assert before["path"] == after["path"] == str(solvers)
    assert before["sha256"] != after["sha256"]


def test_numpys_numbers_are_numbers(solvers: Path) -> None:
    board = TicTacToe().step(np.zeros((1, 9), dtype=np.int8), np.array([4]))[0]
    assert own_player(solvers, "Solved", TicTacToe()).best(board) == [0, 2, 6, 8]
