"""Games as environments: sides, opponents, illegal moves, rewards, the policy against itself."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from strop.engines.draws import DrawKey
from strop.engines.engine import Request, Sampling, prompted_tasks, requests_of
from strop.episodes import Episode
from strop.errors import DataError, RecipeError, WorldError
from strop.recipe.train.environment import EnvironmentRecipe, GameRecipe
from strop.rollout.environments import way_of
from strop.rollout.games.league import League
from strop.rollout.play import Player
from strop.text.parse import decode
from strop.types import Origin, Task
from tests.support.episodes import ScriptedEngine

RULES = "Tic-tac-toe. Say the number of a free place.\n"
CHAT = [{"role": "user", "content": RULES}]


def recipe(**changes: Any) -> GameRecipe:
    given = {"game": "tic_tac_toe", "opponents": ["random"], **changes}
    made = TypeAdapter(EnvironmentRecipe).validate_python(given)
    assert isinstance(made, GameRecipe)
    return made


def boards_of(prompt: str) -> list[str]:
    """The boards that a prompt shows, each as its nine places."""
    rows = re.findall(r"[XO1-9]{3}(?=\n)", prompt)
    assert len(rows) % 3 == 0
    return ["".join(rows[n : n + 3]) for n in range(0, len(rows), 3)]


def first_free(prompt: str, request: Request) -> str:
    return next(sign for sign in boards_of(prompt)[-1] if sign.isdigit())


def play(
    tokenizer: Any,
    environment: GameRecipe,
    say: Any = first_free,
    *,
    prompt: Any = CHAT,
    tasks: int = 1,
    size: int = 1,
    step: int = 2,
    columns: dict[str, Any] | None = None,
) -> tuple[list[Episode], ScriptedEngine]:
    engine = ScriptedEngine(tokenizer, say, end="Ċ" if isinstance(prompt, str) else "<|end|>")
    rows = [Task(prompt, columns or {}, Origin("tasks.jsonl", n)) for n in range(1, tasks + 1)]
    sampling = Sampling(max_tokens=20, stop=("\n",) if isinstance(prompt, str) else ())
    key = DrawKey(3, "training", step)
    requests = requests_of(prompted_tasks(tokenizer, rows), sampling, key, size)
    player = Player(engine, way_of(environment).play(tokenizer, 4096), environment)
    try:
        found = sorted(player.generate(requests), key=lambda pair: pair[0])
    finally:
        player.close()
    return [episode for _, episode in found], engine


def shown_to(episode: Episode) -> list[str]:
    """All boards that the policy saw after its first move."""
    return [b for m in episode.messages if m["role"] == "user" for b in boards_of(m["content"])]


def test_a_game_by_hand(tokenizer: Any) -> None:
    """The first free place, over and over, against itself: 1 2 3 4 5 6 7 wins for the first."""
    for side, reward, turns, fact in (("first", 1.0, 4, "won"), ("second", 0.0, 3, "lost")):
        (episode,), engine = play(tokenizer, recipe(opponents=["self"]), columns={"side": side})
        assert episode.finish == "stop"
        assert episode.reward == reward
        assert [turn.reward for turn in episode.turns] == [None] * (turns - 1) + [reward]
        assert episode.facts[fact] == 1
        assert len(engine.asked) == 7
    assert shown_to(episode) == ["OXO456789", "OXOXO6789"]


def test_both_sides_see_their_own_marks_and_conversation(tokenizer: Any) -> None:
    """Whoever moves reads the rules, then only boards on which it is its turn, its marks as X."""
    _, engine = play(tokenizer, recipe(opponents=["self"]), columns={"side": "second"})
    seen = [boards_of(decode(tokenizer, r.prompt.prompt_ids, special=True)) for r in engine.asked]
    first = ["123456789", "XO3456789", "XOXO56789", "XOXOXO789"]
    second = ["O23456789", "OXO456789", "OXOXO6789"]
    expected = [side[: n + 1] for n in range(4) for side in (first, second) if n < len(side)]
    assert seen == expected
    texts = [decode(tokenizer, r.prompt.prompt_ids, special=True) for r in engine.asked]
    assert all(text.count(RULES) == 1 for text in texts)


def test_a_group_has_side_and_opening_in_common_and_tasks_differ(tokenizer: Any) -> None:
    made = recipe(random_opening=3)
    episodes, engine = play(tokenizer, made, tasks=12, size=4)
    opening = {}
    for request in engine.asked:
        boards = boards_of(decode(tokenizer, request.prompt.prompt_ids, special=True))
        if len(boards) == 1:
            index = request.key.index % 4, request.prompt.task.origin.line
            opening[index] = boards[0]
    assert len(opening) == 48
    marks = Counter()
    for line in range(1, 13):
        counts = {sum(s in "XO" for s in opening[n, line]) % 2 for n in range(4)}
        assert len(counts) == 1  # the side, which tells how many marks there are
        marks[counts.pop()] += 1
    assert min(marks.values()) >= 2
    again, _ = play(tokenizer, made, tasks=12, size=4)
    assert [e.messages for e in again] == [e.messages for e in episodes]
    other, _ = play(tokenizer, made, tasks=12, size=4, step=3)
    assert [e.messages for e in other] != [e.messages for e in episodes]


def test_perfect_opponents_never_lose_and_differ_within_a_group(tokenizer: Any) -> None:
    episodes, _ = play(
        tokenizer, recipe(opponents=["perfect"]), tasks=6, size=8, columns={"side": "second"}
    )
    assert all(e.reward in (0.0, 0.5) for e in episodes)
    assert sum(e.facts.get("lost", 0) for e in episodes) > 20
    groups = [{str(e.messages) for e in episodes[n : n + 8]} for n in range(0, 48, 8)]
    assert min(len(group) for group in groups) > 2


def test_illegal_moves_lose_or_are_told_once(tokenizer: Any) -> None:
    def stubborn(prompt: str, request: Request) -> str:
        return "I take 10."

    (lost,), engine = play(tokenizer, recipe(), stubborn)
    assert (lost.reward, lost.facts["illegal"], lost.facts["lost"]) == (0.0, 1.0, 1.0)
    assert len(engine.asked) == 1
    (told,), engine = play(tokenizer, recipe(illegal="told"), stubborn, columns={"side": "first"})
    assert len(engine.asked) == 2
    assert (told.reward, told.facts["illegal"]) == (0.0, 2.0)
    said = told.messages[1]["content"]
    assert said == "Not a legal move. Legal moves: 1, 2, 3, 4, 5, 6, 7, 8, 9\n123\n456\n789\n"

    def learns(prompt: str, request: Request) -> str:
        return first_free(prompt, request) if "Not a legal move" in prompt else "10"

    (mended,), _ = play(tokenizer, recipe(illegal="told"), learns)
    assert mended.facts["illegal"] == 1
    assert "lost" in mended.facts or mended.reward in (0.5, 1.0)


def test_an_opponents_illegal_move_is_replaced_and_earns_nothing(tokenizer: Any) -> None:
    def one_sided(prompt: str, request: Request) -> str:
        boards = boards_of(prompt)
        marks = sum(sign in "XO" for sign in boards[-1])
        return first_free(prompt, request) if marks % 2 == 0 else "nothing"

    (episode,), _ = play(
        tokenizer, recipe(opponents=["self"]), one_sided, columns={"side": "first"}
    )
    assert episode.facts["opponent_illegal"] >= 2
    assert sum(len(set(b) & {"O"}) for b in shown_to(episode)) >= 2
    assert episode.facts.get("illegal") is None


def test_plain_text_needs_no_template(tokenizer: Any) -> None:
    """Prompts of text: boards are appended, an answer ends its line."""
    (episode,), engine = play(
        tokenizer, recipe(opponents=["self"]), prompt=RULES, columns={"side": "first"}
    )
    assert episode.reward == 1.0
    assert episode.facts["forks"] == 0
    texts = [decode(tokenizer, r.prompt.prompt_ids, special=True) for r in engine.asked]
    assert texts[0] == f"{RULES}123\n456\n789\n"
    assert texts[1] == f"{RULES}O23\n456\n789\n"
    assert len(engine.asked) == 7


def test_a_game_that_limits_cut_short_is_lost(tokenizer: Any) -> None:
    (episode,), _ = play(tokenizer, recipe(max_turns=2))
    assert episode.finish == "length"
    assert episode.reward == 0.0


def test_opponents_of_a_league_are_met_by_its_games(tokenizer: Any, tmp_path: Path) -> None:
    """Against perfect everything was lost, against random won: nearly only perfect is met."""
    games = [
        {"first": "me", "second": name, "score": score, "pair": n}
        for n in range(50)
        for name, score in (("random", 1.0), ("perfect", 0.0))
    ]
    players = {"me": "random", "random": "random", "perfect": "perfect"}
    made = League.model_validate({"game": "tic_tac_toe", "players": players, "games": games})
    made.save(tmp_path / "league.json")
    match = {"file": str(tmp_path / "league.json"), "as": "me"}
    episodes, _ = play(tokenizer, recipe(opponents=[], league=match), tasks=24)
    assert all(e.reward in (0.0, 0.5) for e in episodes)  # a random player loses sometimes
    with pytest.raises(RecipeError, match="plays another game"):
        way_of(recipe(game="connect_four", opponents=[], league=match))


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"opponents": []}, ValueError, "either `opponents` or a `league`"),
        ({"opponents": ["best"]}, ValueError, "opponents"),
        ({"opponents": [{"depth": 3}]}, ValueError, "an opponent is random, perfect, self"),
        ({"opponents": [{"alpha_beta": 4}]}, WorldError, "plays connect four alone"),
        ({"game": "connect_four", "opponents": ["perfect"]}, WorldError, "not solved here"),
        ({"opponents": [{"model": "/no/such"}]}, Exception, "no such model folder"),
    ],
)
def test_what_cannot_be_played_is_refused(
    change: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        way_of(recipe(**change))


def test_connect_four_shown_otherwise_meets_who_plays_connect_four(
    tokenizer: Any, tmp_path: Path
) -> None:
    (tmp_path / "shown.py").write_text(
        "from strop.rollout.games.connect_four import ConnectFour\n"
        "class Shown(ConnectFour):\n"
        "    def show(self, board, player):\n"
        "        return f'{(board > 0).sum()} stones'\n"
    )
    own = {"file": str(tmp_path / "shown.py"), "class": "Shown"}
    made = recipe(game=own, opponents=[{"alpha_beta": 2}])
    episodes, _ = play(tokenizer, made, lambda prompt, request: "4", tasks=4)
    assert {e.facts["lost"] for e in episodes} == {1}, "four in one column are blocked"
    assert all("2 stones" in str(e.messages) or "3 stones" in str(e.messages) for e in episodes)
    with pytest.raises(WorldError, match="not solved here"):
        way_of(recipe(game=own, opponents=["perfect"]))


def test_a_side_is_first_or_second(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="side` says 'X'"):
        play(tokenizer, recipe(), columns={"side": "X"})
