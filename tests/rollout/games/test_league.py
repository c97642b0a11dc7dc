"""Leagues: ratings against simulated strengths, who is met next, and the file."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strop.data.json_text import lines_of
from strop.engines.draws import DrawKey
from strop.engines.engine import Sampling
from strop.errors import DataError, UsageError
from strop.rollout.games.arena import play
from strop.rollout.games.league import League, Played, chosen, read_league
from tests.support import ROOT

PLAYERS: dict[str, Any] = {"random": "random", "perfect": "perfect", "new": {"model": "/m/new"}}


def league(*games: tuple[str, str, float, int]) -> League:
    rows = [dict(zip(("first", "second", "score", "pair"), game, strict=True)) for game in games]
    return League.model_validate({"game": "tic_tac_toe", "players": PLAYERS, "games": rows})


def test_chances_and_weights_by_hand() -> None:
    """Two drawn games count beforehand. `new` won 3 of 4 against random (3 + 1 of 6) and lost 2 of
    2 against perfect (1 of 4): weights (1/3)^2 and (3/4)^2."""
    made = league(
        ("new", "random", 1.0, 0), ("random", "new", 0.0, 0), ("new", "random", 1.0, 1),
        ("random", "new", 1.0, 1), ("new", "perfect", 0.0, 0), ("perfect", "new", 1.0, 0),
    )  # fmt: skip
    assert made.chance("new", "random") == pytest.approx(4 / 6)
    assert made.chance("random", "new") == pytest.approx(2 / 6)
    assert made.chance("new", "perfect") == pytest.approx(1 / 4)
    weights = made.weights("new")
    raw = (1 / 3) ** 2, (3 / 4) ** 2
    assert weights == pytest.approx({"random": raw[0] / sum(raw), "perfect": raw[1] / sum(raw)})


def test_opponents_are_drawn_by_their_weights_and_keys() -> None:
    weights = {"a": 0.2, "b": 0.0, "c": 0.8}
    keys = [DrawKey(0, "training", step, prompt="game") for step in range(2000)]
    found = [chosen(weights, key) for key in keys]
    assert found == [chosen(weights, key) for key in keys]
    count = Counter(found)
    assert set(count) == {"a", "c"}
    assert abs(count["c"] / 2000 - 0.8) < 0.035  # 4 standard deviations


def test_ratings_find_the_strengths_that_made_the_games() -> None:
    """Elo 0, 150 and 300, and 60 points for moving first: intervals cover the truth about 95 times
    in 100, and are centred on it."""
    truth = {"random": 0.0, "new": 150.0, "perfect": 300.0}
    draws = np.random.default_rng(5)
    pairs = [("random", "new"), ("new", "perfect"), ("random", "perfect")]
    covered, errors = 0, []
    for _ in range(60):
        games = []
        for pair, (one, other) in enumerate(pairs * 80):
            for first, second in ((one, other), (other, one)):
                ahead = truth[first] - truth[second] + 60
                score = float(draws.random() < 1 / (1 + 10 ** (-ahead / 400)))
                games.append((first, second, score, pair))
        rating = league(*games).ratings("random")["perfect"]
        covered += rating.low <= 300 <= rating.high
        errors.append(rating.elo - 300)
    assert 52 <= covered <= 60
    assert abs(np.mean(errors)) < 12


def test_an_anchor_is_at_zero_and_equals_are_even() -> None:
    games = []
    for pair in range(10):
        for one, other in (("random", "perfect"), ("perfect", "new"), ("new", "random")):
            won = float(pair % 2)
            games += [(one, other, won, pair), (other, one, 1 - won, pair)]
    ratings = league(*games).ratings("new")
    assert ratings["new"].elo == ratings["new"].low == ratings["new"].high == 0
    assert abs(ratings["random"].elo) < 1e-6
    assert ratings["random"].low < 0 < ratings["random"].high


def test_a_file_holds_everything(tmp_path: Path) -> None:
    made = league(("new", "random", 0.5, 0))
    made.save(tmp_path / "league.json")
    assert read_league(tmp_path / "league.json") == made
    grown = made.joined([Played(first="random", second="new", score=1.0, pair=0)])
    assert len(made.games) == 1
    assert [game.score for game in grown.games] == [0.5, 1.0]
    rows = json.loads((tmp_path / "league.json").read_text())
    (tmp_path / "runs/new").mkdir(parents=True)
    rows["players"]["new"] = {"model": "runs/new"}
    (tmp_path / "league.json").write_text(json.dumps(rows))
    read = read_league(tmp_path / "league.json").plain()
    assert read["players"]["new"] == {"model": str(tmp_path / "runs/new")}


def test_players_meet_in_pairs_that_begin_alike(model_folder: Path) -> None:
    """Perfect never loses from the first board; the raw model says nothing legal and loses; the
    same seed plays the same games, and further ones are further pairs."""
    players = {"random": "random", "perfect": "perfect", "raw": {"model": str(model_folder)}}
    empty = League.model_validate({"game": "tic_tac_toe", "players": players})
    prompt, sampling = [{"role": "user", "content": "Play.\n"}], Sampling(max_tokens=2)
    once = play(empty, prompt, sampling, pairs=6, seed=1)
    assert len(once.games) == 6 * 6
    assert play(empty, prompt, sampling, pairs=6, seed=1) == once
    for game in once.games:
        if game.second == "perfect":
            assert game.score <= 0.5
        if game.first == "perfect":
            assert game.score >= 0.5
        if game.first == "raw":
            assert game.score == 0.0
    more = play(once, prompt, sampling, pairs=2, seed=1)
    assert {game.pair for game in more.games[36:]} == {6, 7}
    ratings = more.ratings("random")
    assert ratings["perfect"].low > 0 > ratings["raw"].high


def test_who_looks_further_ahead_wins_more() -> None:
    empty = League.model_validate(
        {"game": "connect_four", "players": {"a": {"alpha_beta": 2}, "b": {"alpha_beta": 4}}}
    )
    played = play(empty, "", Sampling(), pairs=8, seed=2, opening=4).games
    assert Counter(game.pair for game in played) == dict.fromkeys(range(8), 2)
    assert {(game.first, game.second) for game in played} == {("a", "b"), ("b", "a")}
    deeper = [g.score if g.first == "b" else 1 - g.score for g in played]
    assert sum(deeper) > 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"players": {"a": "self"}}, "random, perfect, {alpha_beta: 6} or {model: FOLDER}|perfect"),
        ({"games": [{"first": "a", "second": "new", "score": 1, "pair": 0}]}, "'a', who is no"),
        ({"games": [{"first": "random", "second": "new", "score": 2, "pair": 0}]}, "score"),
        ({"game": "go"}, "game"),
        (
            {"games": [{"first": "new", "second": "new", "score": 1, "pair": 0}]},
            "'new' cannot play a game against itself",
        ),
        ({"gmes": []}, "unknown key `gmes`\n  fix: did you mean `games`"),
    ],
)
def test_what_is_no_league_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    file = tmp_path / "league.json"
    file.write_text(json.dumps({"game": "tic_tac_toe", "players": PLAYERS, **change}))
    with pytest.raises(DataError, match=said):
        read_league(file)
    file.write_text("{")
    with pytest.raises(DataError, match=r"broken JSON: .*line 1 column 2"):
        read_league(file)


def test_what_cannot_be_told_is_refused() -> None:
    with pytest.raises(UsageError, match="'old' has no opponents"):
        league().weights("old")
    with pytest.raises(DataError, match="no ratings"):
        league(("new", "random", 1.0, 0)).ratings("new")
    games = [("new", "random", score, pair) for pair in range(6) for score in (1.0, 0.0)]
    games += [("random", "new", score, pair) for pair in range(6) for score in (1.0, 0.0)]
    with pytest.raises(DataError, match="perfect played no game"):
        league(*games).ratings("new")


BROKEN = """{
 "game": "tic_tac_toe",
 "players": {"random": "random",
             "perfect": "perfect",
             "sft": {"model": "/m/new"}},
 "games": [
  {"first": "sft", "second": "random",
   "score": 1.0, "pair": 0},
  {"first": "sft", "second": "perfect", "score": 0.5, "pair": 1}
 ]
}"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"perfect": "perfect"', '"random": "perfect"',
         ":4: the player 'random' is there twice, first in line 3\n  fix: give one of them"),
        ('"pair": 0', '"score": 0.0', ":8: the key 'score' is there twice, first in line 8"),
        ('"first": "sft", "second": "p', '"first": "stf", "second": "p',
         ":9: `games.1`: it was played by 'stf', who is no player: did you mean 'sft'? there are "
         "random, perfect, sft"),
        ('"second": "perfect"', '"second": "sft"',
         ":9: `games.1`: 'sft' cannot play a game against itself"),
        ('"score": 1.0', '"score": 2.0', ":8: `games.0.score`: Input should be less than or equal"),
        ('"score": 1.0', '"scor": 1.0', "unknown key `games.scor`\n  fix: did you mean `score`?"),
        ('{"model": "/m/new"}', '{"modl": "/m/new"}', ":5: `players.sft`: a player is random"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    file = tmp_path / "league.json"
    file.write_text(BROKEN)
    assert len(read_league(file).games) == 2
    assert BROKEN.count(old) == 1
    file.write_text(BROKEN.replace(old, new))
    with pytest.raises(DataError) as raised:
        read_league(file)
    assert said in str(raised.value)
    assert str(raised.value).startswith(f"{file}:")
    file.write_text("[]")
    with pytest.raises(DataError, match=r"league.json:1: a league is an object"):
        read_league(file)


def test_every_key_and_item_has_its_line() -> None:
    text = '{"a": [1,\n {"b": "},\\"", "c": []},\n\n [2, "x:"]],\n "d": {}, "": null}'
    assert list(lines_of(text)) == [
        (("a",), 1), (("a", 0), 1), (("a", 1), 2), (("a", 1, "b"), 2), (("a", 1, "c"), 2),
        (("a", 2), 4), (("a", 2, 0), 4), (("a", 2, 1), 4), (("d",), 5), (("",), 5),
    ]  # fmt: skip


def test_the_code_of_the_docs_makes_plays_and_reads_a_league(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs/environments.md").read_text()
    (block,) = [
        b for b in re.findall(r"```python\n(.*?)```", page, flags=re.S) if "read_league" in b
    ]
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    league = read_league(tmp_path / "league.json")
    assert len(league.games) == 16
    assert "Rating(elo=" in capsys.readouterr().out
    won, played = league.tally("perfect", "random")
    assert won > played / 2
