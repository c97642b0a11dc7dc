"""Opponents of the user's own: they play as a class says, and a broken one is told or costs its
game."""

from __future__ import annotations

import asyncio
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
from strop.recipe.train.game import AlphaBetaRecipe, FrozenRecipe, OwnPlayerRecipe
from strop.rollout.environment import FaultError
from strop.rollout.environments import way_of
from strop.rollout.games.opponents import by_name
from strop.rollout.games.own.player import OwnPlayer, own_player
from strop.rollout.games.tic_tac_toe import TicTacToe
from strop.rollout.play import Player
from strop.train.rundir.directory import environment_files
from strop.types import Origin, Task
from tests.support.episodes import ScriptedEngine

SOLVERS = '''
import os, sys, time
from pathlib import Path
import numpy as np
from strop.rollout.games.solved import Solver
from strop.rollout.games.tic_tac_toe import TicTacToe

class Solved:
    def __init__(self): self.solver = Solver(TicTacToe())
    def best(self, board): return self.solver.best(board)

class Last:
    def best(self, board): return [int((board == 0).nonzero()[0][-1])]

class Unsigned(Last):
    def best(self, board): return np.array(super().best(board), dtype=np.uint8)

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

class Once(Last):
    """Does `fault` in its third game, of which two are its trial; a file says which game it is."""
    def best(self, board):
        games = Path(__file__).with_suffix(".games")
        if not (board > 0).any():
            with games.open("a") as stream:
                stream.write("x")
            if games.stat().st_size == 6:  # a trial asks twice
                self.fault()
        return super().best(board)

class Exits(Once):
    def fault(self): sys.exit(3)

class Ends(Once):
    def fault(self): raise BaseException("nothing catches it")

class Hangs(Once):
    def fault(self): time.sleep(1000)

class AlwaysExits:
    def best(self, board): sys.exit(3)

class AlwaysHangs:
    def best(self, board): time.sleep(1000)

class AlwaysDies:
    def best(self, board): os._exit(3)

class One(Last):
    def best(self, board): return super().best(board)[0]

class Whole(Last):
    def best(self, board): return [float(n) for n in super().best(board)]

class Mask:
    def best(self, board): return board == 0

class Beside(Last):
    def best(self, board):
        import strop_beside
        return strop_beside.best(board)

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


KEY = DrawKey(0, "eval", prompt="a")


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
    with pytest.warns(UserWarning, match="Tires: best raises RuntimeError: worn out"):
        episodes = played(tokenizer, recipe, tasks=3)
    assert sorted(episode.finish for episode in episodes) == ["error", "stop", "stop"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Exits", "best raises SystemExit: 3"),
        ("Ends", "best raises BaseException: nothing catches it"),
        ("Hangs", "best gives no answer within 0.5 s"),
    ],
)
def test_whatever_it_does_costs_its_game_alone(
    tokenizer: Any, solvers: Path, name: str, said: str
) -> None:
    """A process that hangs is ended, and the others' moves come from a new one."""
    recipe = against({"file": str(solvers), "class": name, "call_seconds": 0.5})
    with pytest.warns(UserWarning, match=f"solver.py, {name}: {said}"):
        episodes = played(tokenizer, recipe, tasks=3)
    assert sorted(episode.finish for episode in episodes) == ["error", "stop", "stop"]
    assert all(e.reward is None for e in episodes if e.finish == "error")


def test_a_call_that_hangs_holds_up_no_end(solvers: Path) -> None:
    """Closing ends the process at once, and who waited is told; nobody waits out the 1000 s."""
    (solvers.parent / "solver.games").write_text("x")  # the trial has one game left
    hung = OwnPlayerRecipe(file=str(solvers), **{"class": "Hangs", "call_seconds": 900.0})
    player = own_player(hung, TicTacToe())
    empty = TicTacToe().reset([0])[0]

    async def moves() -> None:
        waiting = [asyncio.ensure_future(player.move(empty, KEY)) for _ in range(3)]
        await asyncio.sleep(0.1)
        await asyncio.to_thread(player.close)
        for one in waiting:
            with pytest.raises(FaultError, match="ends its process"):
                await one

    asyncio.run(moves())


def test_it_imports_its_neighbour(solvers: Path) -> None:
    (solvers.parent / "strop_beside.py").write_text("def best(board): return [4]\n")
    recipe = OwnPlayerRecipe(file=str(solvers), **{"class": "Beside"})
    player = OwnPlayer(recipe, TicTacToe())
    assert player.best(TicTacToe().reset([0])[0]) == [4]
    player.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Nobody", "no class 'Nobody'"),
        ("Mute", "Mute has no method best"),
        ("Cheats", r"best gives \[0\], and has to give one or more of the legal moves"),
        ("Silent", r"best gives \[\], and has to"),
        ("Names", r"best gives \['1'\], and has to give .* \(a list of their numbers\)"),
        ("Fickle", "when asked again"),
        ("One", r"best gives 8, and has to give .* \(a list of their numbers\)"),
        ("Whole", r"best gives \[8.0\], and has to give"),
        ("Mask", r"best gives \[True, .*\], and has to give"),
        ("AlwaysExits", "AlwaysExits: best raises SystemExit: 3"),
        ("AlwaysDies", "AlwaysDies: best ends its process"),
        ("AlwaysHangs", r"best gives no answer within 0.5 s \(`call_seconds`\)"),
    ],
)
def test_a_class_that_is_no_player_is_refused(solvers: Path, name: str, said: str) -> None:
    with pytest.raises(WorldError, match=said):
        way_of(against({"file": str(solvers), "class": name, "call_seconds": 0.5}))


def test_a_players_file_is_an_input_of_the_run(solvers: Path) -> None:
    recipe = against({"file": str(solvers), "class": "Last"})
    (before,) = environment_files(recipe)
    solvers.write_text(SOLVERS + "\n")
    (after,) = environment_files(recipe)
    assert before["path"] == after["path"] == str(solvers)
    assert before["sha256"] != after["sha256"]


def test_numpys_numbers_are_numbers(solvers: Path) -> None:
    board = TicTacToe().step(np.zeros((1, 9), dtype=np.int8), np.array([4]))[0]
    for name, best in (("Solved", [0, 2, 6, 8]), ("Unsigned", [8])):
        player = own_player(OwnPlayerRecipe(file=str(solvers), **{"class": name}), TicTacToe())
        assert player.best(board) == best
        player.close()


def test_opponents_are_called_by_as_much_of_their_path_as_tells_them_apart() -> None:
    def own(file: str, **given: Any) -> OwnPlayerRecipe:
        return OwnPlayerRecipe(file=file, **{"class": "S", **given})

    assert list(by_name(["random", own("/a/x/s.py"), AlphaBetaRecipe(alpha_beta=6)])) == [
        "random", "s.py:S", "alpha_beta 6",
    ]  # fmt: skip
    alike = [own("/a/x/s.py"), own("/a/y/s.py"), own("/a/y/s.py", **{"class": "T"}),
             own("/b/y/s.py"), own("/a/y/s.py", call_seconds=3)]  # fmt: skip
    assert by_name([*alike, alike[0]]) == dict(zip(
        ("x/s.py:S", "/a/y/s.py:S (10 s)", "s.py:T", "b/y/s.py:S", "/a/y/s.py:S (3 s)"),
        alike, strict=True,
    ))  # fmt: skip
    models = [FrozenRecipe(model=name) for name in ("/r/sft/final", "/r/dpo/final", "/s/dpo/final")]
    assert list(by_name(models)) == ["sft/final", "r/dpo/final", "s/dpo/final"]
    hub = [FrozenRecipe.model_construct(model=name) for name in ("org/name", "/hub/org/name")]
    assert list(by_name(hub)) == ["org/name", "hub/org/name"]


def test_no_metric_holds_a_path_of_the_machine(tokenizer: Any, solvers: Path) -> None:
    (episode,) = played(tokenizer, against({"file": str(solvers), "class": "Last"}))
    assert "met/solver.py:Last" in episode.facts
    assert str(solvers.parent) not in str(episode.facts)
