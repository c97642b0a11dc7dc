"""The rules: moves, ends and texts of games, one's own game, and who plays best."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from strop.engines.draws import DrawKey
from strop.errors import WorldError
from strop.rollout.games.alpha_beta import AlphaBeta
from strop.rollout.games.connect_four import ConnectFour
from strop.rollout.games.game import Boards, Game, named, over, random_games
from strop.rollout.games.lines import lines_of
from strop.rollout.games.own.game import check, own_game
from strop.rollout.games.own.made import BrokenRuleError
from strop.rollout.games.players import BestPlayer, RandomPlayer, ply_key
from strop.rollout.games.solved import Solver
from strop.rollout.games.tic_tac_toe import TicTacToe

TTT, FOUR = TicTacToe(), ConnectFour()


def after(game: Game, moves: str) -> Boards:
    """The board after these moves, by their names."""
    board = game.reset([0])
    for move in moves:
        number = list(game.moves).index(move)
        assert game.legal(board)[0, number]
        board = game.step(board, np.array([number]))
    return board[0]


def test_tic_tac_toe_by_hand() -> None:
    board = after(TTT, "519")
    assert TTT.show(board, 0) == "O23\n4X6\n78X"
    assert TTT.show(board, 1) == "X23\n4O6\n78O"
    assert TTT.player(board[None])[0] == 1
    assert np.flatnonzero(~TTT.legal(board[None])[0]).tolist() == [0, 4, 8]
    assert np.isnan(TTT.outcome(board[None])).all()
    ends = np.stack([after(TTT, moves) for moves in ("14253", "123548", "123546879")])
    assert TTT.outcome(ends).tolist() == [[1, -1], [-1, 1], [0, 0]]


def test_connect_four_by_hand() -> None:
    board = after(FOUR, "4433")
    assert FOUR.show(board, 0).split("\n")[5:] == ["..OO...", "..XX..."]
    row = after(FOUR, "4433221")
    assert FOUR.outcome(row[None]).tolist() == [[1, -1]]
    column = after(FOUR, "71717171"[1:])
    assert FOUR.outcome(column[None]).tolist() == [[1, -1]]
    second = after(FOUR, "72725212")
    assert FOUR.outcome(second[None]).tolist() == [[-1, 1]]
    for diagonal in ("1223733474644", "7665155414244"):
        assert FOUR.outcome(after(FOUR, diagonal)[None]).tolist() == [[1, -1]]
    full = after(FOUR, "111111")
    assert FOUR.show(full, 1).startswith("-234567\nX......\nO......")
    assert FOUR.legal(full[None])[0].tolist() == [False] + [True] * 6


def test_lines_are_counted() -> None:
    """3 + 3 + 2 of tic-tac-toe; of connect four 24 flat, 21 upright and 24 diagonal ones."""
    assert len(lines_of(3, 3, 3)) == 8
    assert len(lines_of(6, 7, 4)) == 69
    assert len({tuple(sorted(line)) for line in lines_of(6, 7, 4).tolist()}) == 69


def test_a_move_is_the_last_word_of_an_answer() -> None:
    assert named(TTT, "I block on 2, so: **5**.") == 4
    assert named(TTT, "5 is best") is None
    assert named(TTT, "") is None
    assert named(TTT, "10") is None


def test_games_at_random_depend_on_their_key_alone() -> None:
    one = random_games(FOUR, range(20), DrawKey(3, "data"))
    for (boards, moves), (again, same) in zip(
        one, random_games(FOUR, range(20), DrawKey(3, "data")), strict=True
    ):
        assert np.array_equal(boards, again)
        assert np.array_equal(moves, same)
        assert over(FOUR, boards).tolist() == [False] * len(moves) + [True]
    other = random_games(FOUR, range(20), DrawKey(4, "data"))
    assert any(not np.array_equal(a[1], b[1]) for a, b in zip(one, other, strict=True))


def test_tic_tac_toe_is_solved() -> None:
    """Known: the game is a draw from every first move; against a corner only the middle holds,
    against the middle only corners do, against an edge the middle, its corners and the place
    across; there are 5,478 positions."""
    solver = Solver(TTT)
    assert solver.value(after(TTT, "")) == 0
    assert len(solver._values) == 5478
    assert solver.best(after(TTT, "")).tolist() == list(range(9))
    assert solver.best(after(TTT, "1")).tolist() == [4]
    assert solver.best(after(TTT, "5")).tolist() == [0, 2, 6, 8]
    assert solver.best(after(TTT, "2")).tolist() == [0, 2, 4, 7]
    assert solver.best(after(TTT, "152")).tolist() == [2]  # blocks
    assert solver.value(after(TTT, "12")) == 1  # an edge against a corner loses


def test_perfect_players_always_draw_and_vary() -> None:
    player = BestPlayer(Solver(TTT))
    seen = set()
    for game in range(40):
        board, moves = TTT.reset([0]), ""
        while not over(TTT, board)[0]:
            key = ply_key(DrawKey(game, "training"), len(moves))
            move = asyncio.run(player.move(board[0], key))
            assert move is not None
            board, moves = TTT.step(board, np.array([move])), moves + TTT.moves[move]
        assert TTT.outcome(board)[0].tolist() == [0, 0]
        seen.add(moves)
    assert len(seen) > 35


def test_random_players_take_every_move_alike() -> None:
    board = after(TTT, "12345")
    player = RandomPlayer(TTT)
    found = Counter(
        asyncio.run(player.move(board, DrawKey(seed, "training"))) for seed in range(2000)
    )
    assert set(found) == {5, 6, 7, 8}
    assert all(430 < count < 570 for count in found.values())  # 500 by 19: 3.6 deviations


def minimax(board: Boards, depth: int) -> int:
    """The value for the one whose turn it is, without bits, bounds or a table."""
    outcome = FOUR.outcome(board[None])[0]
    player = int(FOUR.player(board[None])[0])
    if not np.isnan(outcome[0]):
        return int(outcome[player])
    if depth == 0:
        return 0
    moves = np.flatnonzero(FOUR.legal(board[None])[0])
    return max(-minimax(FOUR.step(board[None], np.array([m]))[0], depth - 1) for m in moves)


def test_alpha_beta_finds_what_plain_minimax_finds() -> None:
    search = AlphaBeta(4)
    values = []
    for boards, _ in random_games(FOUR, range(12), DrawKey(5, "data")):
        for board in boards[4:-1:5]:
            values.append(search.value(board))
            assert values[-1] == minimax(board, 4)
            moves = np.flatnonzero(FOUR.legal(board[None])[0])
            worth = [-minimax(FOUR.step(board[None], np.array([m]))[0], 3) for m in moves]
            best = [m for m, v in zip(moves, worth, strict=True) if v == max(worth)]
            assert search.best(board).tolist() == best
    assert set(values) == {-1, 0, 1}


def test_alpha_beta_by_hand() -> None:
    search = AlphaBeta(6)
    assert search.best(after(FOUR, "112233")).tolist() == [3]  # wins at once
    assert search.best(after(FOUR, "11223")).tolist() == [3]  # the only block
    open_two = after(FOUR, "4455")  # a third stone beside these has both ends open
    assert AlphaBeta(3).value(open_two) == 1
    assert AlphaBeta(3).best(open_two).tolist() == [2, 5]
    assert AlphaBeta(2).value(open_two) == 0  # the win is the third stone from here


def test_alpha_beta_is_exact_at_the_end() -> None:
    """With no more than `depth` places free, deeper search changes nothing."""
    ends = [
        board
        for boards, _ in random_games(FOUR, range(300), DrawKey(6, "data"))
        for board in boards[:-1]
        if (board == 0).sum() == 7
    ]
    assert len(ends) > 10
    for board in ends:
        assert AlphaBeta(7).value(board) == minimax(board, 42)


class Nim:
    """One to three of seven stones are taken by turns; who takes the last one wins."""

    moves = ("one", "two", "three")

    def reset(self, seeds):  # type: ignore[no-untyped-def]
        return np.array([[7, 0]] * len(seeds), dtype=np.int8)

    def player(self, boards):  # type: ignore[no-untyped-def]
        return boards[:, 1].astype(np.int64)

    def legal(self, boards):  # type: ignore[no-untyped-def]
        return boards[:, :1] >= np.array([[1, 2, 3]])

    def step(self, boards, moves):  # type: ignore[no-untyped-def]
        return np.stack([boards[:, 0] - moves - 1, 1 - boards[:, 1]], axis=1).astype(np.int8)

    def outcome(self, boards):  # type: ignore[no-untyped-def]
        won = np.where(boards[:, 1] == 1, 1.0, -1.0)  # the one who just moved
        won[boards[:, 0] > 0] = np.nan
        return np.stack([won, -won], axis=1)

    def show(self, board, player):  # type: ignore[no-untyped-def]
        return f"{board[0]} stones"


def test_ones_own_game_is_solved_as_by_hand() -> None:
    """Nim: leave a multiple of four."""
    check(Nim())
    solver = Solver(Nim())
    assert solver.value(np.array([7, 0], dtype=np.int8)) == 1
    assert solver.best(np.array([7, 0], dtype=np.int8)).tolist() == [2]
    assert solver.value(np.array([4, 0], dtype=np.int8)) == -1
    assert solver.best(np.array([4, 0], dtype=np.int8)).tolist() == [0, 1, 2]


DRAWS = itertools.count()
FAULTS = {
    "no function of its seed": (
        {"reset": lambda self, seeds: np.array(
            [[7 + next(DRAWS) % 2, 0] for _ in seeds], dtype=np.int8)},
        "another board when asked again",
    ),
    "both win": (
        {"outcome": lambda self, boards: abs(Nim.outcome(self, boards))},
        r"\[1.0, 1.0\]: a win of one is the other's loss",
    ),
    "too much is won": (
        {"outcome": lambda self, boards: 2 * Nim.outcome(self, boards)}, "from -1 to 1",
    ),
    "no move left": (
        {"legal": lambda self, boards: boards[:, :1] >= np.array([[2, 3, 4]])},
        "no legal move",
    ),
    "step changes its argument": (
        {"step": lambda self, boards, moves: _taken(boards, moves)},
        "another board for the same move|changes the boards",
    ),
    "names alike": ({"moves": ("one", "one", "three")}, "names that differ"),
    "names alike in lower case": (
        {"moves": ("a", "A", "b")}, "ends in its move 'A' is taken for 'a': upper and lower case",
    ),
    "a name that ends in a mark": (
        {"moves": ("1.", "2", "3")}, r"no answer can name its move '1\.'",
    ),
    "a name in brackets": (
        {"moves": ("1", "(2)", "3")}, r"no answer can name its move '\(2\)'",
    ),
    "a name of marks": ({"moves": ("1", "2", "**")}, r"no answer can name its move '\*\*'"),
    "a name that is another's in marks": (
        {"moves": ("1", "1.", "3")}, "ends in its move '1.' is taken for '1'",
    ),
    "a name of two words": ({"moves": ("one", "two", "all three")}, "no white space"),
    "legal says numbers": (
        {"legal": lambda self, boards: Nim.legal(self, boards).astype(int)}, "booleans",
    ),
    "no third player": (
        {"player": lambda self, boards: boards[:, 1].astype(np.int64) + 1}, "neither 0 nor 1",
    ),
    "shows nothing": ({"show": lambda self, board, player: ""}, "show gives no text"),
    "boards matter to each other": (
        {"step": lambda self, boards, moves: Nim.step(self, boards, np.full_like(moves, moves[0]))},
        "a legal move|same move|goes on|no legal move",
    ),
}  # fmt: skip


def _taken(boards, moves):  # type: ignore[no-untyped-def]
    boards[:, 0] -= moves + 1
    boards[:, 1] = 1 - boards[:, 1]
    return boards


@pytest.mark.parametrize("fault", FAULTS)
def test_a_game_that_breaks_its_rules_is_refused(fault: str) -> None:
    change, said = FAULTS[fault]
    broken = type("Broken", (Nim,), change)
    with pytest.raises((BrokenRuleError, ValueError), match=said):
        check(broken())


OWN = '''
import numpy as np
class Turns:
    """Three moves, then nobody won."""
    moves = ("on",)
    def reset(self, seeds): return np.zeros((len(seeds), 1), dtype=np.int8)
    def player(self, boards): return boards[:, 0] % 2
    def legal(self, boards): return boards < 9
    def step(self, boards, moves): return boards + 1
    def outcome(self, boards):
        return np.where(boards == 3, 0.0, np.nan).repeat(2, axis=1)
    def show(self, board, player): return str(board[0])
class Half:
    moves = ("on",)
    def reset(self, seeds): return 1
class Raises(Turns):
    def legal(self, boards): raise KeyError("rows")
class Endless(Turns):
    def outcome(self, boards): return np.full((len(boards), 2), np.nan)
    def step(self, boards, moves): return boards
'''


def test_a_users_class_is_found_and_tried(tmp_path: Path) -> None:
    file = tmp_path / "game.py"
    file.write_text(OWN)
    game = own_game(file, "Turns")
    assert game.show(game.reset([0])[0], 0) == "0"
    for name, said in (
        ("Chess", "no class 'Chess'"),
        ("Half", "no method player, legal, step, outcome, show"),
        ("Raises", "fails in a game at random: KeyError: 'rows'"),
        ("Endless", "did not end within 1000 moves"),
    ):
        with pytest.raises(WorldError, match=said):
            own_game(file, name)
    with pytest.raises(WorldError, match="no such Python file"):
        own_game(tmp_path / "none.py", "Turns")
