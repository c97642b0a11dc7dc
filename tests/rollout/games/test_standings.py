"""Who is met within a run follows its games: by hand, with planted opponents, and in training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from strop.distributed.world import ALONE, World
from strop.engines.draws import DrawKey
from strop.engines.engine import Request, Sampling, prompted_tasks, requests_of
from strop.episodes import Episode
from strop.errors import UsageError
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.environment import GameRecipe
from strop.rollout.environments import way_of
from strop.rollout.games.league import League
from strop.rollout.games.standings import Standings
from strop.rollout.play import Player
from strop.train.run import train
from strop.types import Finish, Origin, Rollout, Score, ScoredGroup, Task
from tests.support.episodes import ScriptedEngine
from tests.support.gloo import in_processes
from tests.support.runs import break_off, final_weights, metrics, same, write_jsonl

PLAYERS = {"weak": "random", "strong": "perfect", "me": {"model": "/m/me"}}
RULES = "Tic-tac-toe. Say the number of a free place.\n"


def league(*games: tuple[str, str, float]) -> League:
    rows = [{"first": a, "second": b, "score": s, "pair": n} for n, (a, b, s) in enumerate(games)]
    return League.model_validate({"game": "tic_tac_toe", "players": PLAYERS, "games": rows})


def group(*games: tuple[str, float | None, Finish]) -> ScoredGroup:
    episodes = tuple(
        Episode(text="x", finish=finish, ids=(5, 2), sampled=(True, True), logprobs=(-0.1, -0.1),
                versions=(), reward=reward, facts={f"met/{name}": 1.0, "won": 1.0})
        for name, reward, finish in games
    )  # fmt: skip
    rollout = Rollout(Task("a", {}, Origin("t.jsonl", 1)), (1,), episodes)
    return ScoredGroup(rollout, tuple(Score(reward, {}) for _, reward, _ in games))


def test_standings_by_hand() -> None:
    """The file has a win and a loss against `weak`; then it is lost to twice, and `strong` once
    drawn. Two drawn games count beforehand; a game that failed says nothing."""
    made = Standings(league(("me", "weak", 1.0), ("weak", "me", 1.0)), "me")
    assert made.opening == pytest.approx({"weak": 0.5, "strong": 0.5})
    made.note([group(("weak", 0.0, "stop"), ("strong", 0.5, "stop"), ("strong", None, "error"))])
    made.note([group(("weak", 0.0, "length"))])
    weak = (0.99**2 * 1 + 1) / (0.99**2 * 2 + 0.99 + 1 + 2)
    strong = (0.5 + 1) / (1 + 2)
    assert (made.chance("weak"), made.chance("strong")) == pytest.approx((weak, strong))
    raw = {"weak": (1 - weak) ** 2, "strong": (1 - strong) ** 2}
    weights = {name: weight / sum(raw.values()) for name, weight in raw.items()}
    assert made.weights() == pytest.approx(weights)
    assert made.opening == pytest.approx({"weak": 0.5, "strong": 0.5})
    assert made.metrics() == pytest.approx({
        "league/win_rate/weak": weak, "league/win_rate/strong": strong,
        "league/weight/weak": weights["weak"], "league/weight/strong": weights["strong"],
    })  # fmt: skip


def test_a_state_is_that_of_its_league() -> None:
    made, other = Standings(league(), "me"), Standings(league(), "me")
    made.note([group(("weak", 1.0, "stop"))])
    other.load(made.state())
    assert other.weights() == made.weights() != other.opening
    with pytest.raises(UsageError, match="the league's file that the run was started with"):
        Standings(league(), "weak").load(made.state())


def first_free(prompt: str, request: Request) -> str:
    places = prompt.rstrip("\n").split("\n")[-3:]
    return next(sign for sign in "".join(places) if sign.isdigit())


def environment(folder: Path, made: League) -> dict[str, Any]:
    made.save(folder / "league.json")
    return {"game": "tic_tac_toe", "league": {"file": str(folder / "league.json"), "as": "me"}}


def test_a_strong_opponent_is_met_more_and_more(tokenizer: Any, tmp_path: Path) -> None:
    """Who takes the first free place beats who moves at random in about two games of three, and no
    perfect player; a measurement goes on to meet both alike."""
    recipe = GameRecipe.model_validate(environment(tmp_path, league()))
    way = way_of(recipe)
    player = Player(
        ScriptedEngine(tokenizer, first_free, end="Ċ"), way.play(tokenizer, 4096), recipe
    )
    tasks = [Task(RULES, {}, Origin("tasks.jsonl", n)) for n in range(1, 61)]
    prompts = prompted_tasks(tokenizer, tasks)
    sampling = Sampling(max_tokens=20, stop=("\n",))

    def met(stream: str, step: int) -> tuple[float, list[Any]]:
        key = DrawKey(3, stream, step)  # type: ignore[arg-type]
        found = dict(player.generate(requests_of(prompts, sampling, key, 1)))
        episodes = [found[n] for n in range(len(tasks))]
        return sum("met/strong" in one.facts for one in episodes) / len(tasks), episodes

    assert way.results is not None
    shares = []
    try:
        for step in range(6):
            share, episodes = met("training", step)
            shares.append(share)
            scored = [
                ScoredGroup(Rollout(task, (1,), (one,)), (Score(one.reward, {}),))
                for task, one in zip(tasks, episodes, strict=True)
            ]
            way.results.note(scored)
        measured, _ = met("held_out", 6)
    finally:
        player.close()
    rates = way.results.metrics()
    assert rates["league/win_rate/weak"] > 0.5
    assert rates["league/win_rate/strong"] < 0.1
    assert rates["league/weight/strong"] > 0.8
    assert abs(shares[0] - 0.5) < 0.2
    assert min(shares[2:]) > 0.7
    assert abs(measured - 0.5) < 0.2


def written(folder: Path, model_folder: Path) -> Path:
    """A run of a model that knows no game: what it beat before it loses to now."""
    won = [("me", "weak", 1.0), ("strong", "me", 1.0)]
    write_jsonl(folder / "tasks.jsonl", [{"prompt": RULES}] * 12)
    played = {**environment(folder, league(*won)), "turns": "together"}
    rollout = {"group_size": 2, "max_tokens": 2, "stop": ["\n"], "environment": played}
    recipe = {
        "method": "grpo", "output": "run", "seed": 3, "model": {"path": str(model_folder)},
        "data": "tasks.jsonl", "optim": {"learning_rate": 1e-4}, "rollout": rollout,
        "reward": [{"function": "environment"}, {"function": "own", "file": "rewards.py"}],
        "run": {"steps": 4, "batch_size": 6, "save_every": 2},
    }  # fmt: skip
    (folder / "rewards.py").write_text(
        "def own(prompts, completions, **columns):\n    return [len(str(c)) for c in completions]\n"
    )
    (folder / "league.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "league.yaml"


def part(world: World, path: Path, options: Sequence[str]) -> None:
    train(load_recipe(path, list(options)), world=world)


def test_a_run_follows_its_games_and_repeats(tmp_path: Path, model_folder: Path) -> None:
    """Resumed it ends with the same bits; two processes meet whom one meets."""
    path = written(tmp_path, model_folder)
    part(ALONE, path, [])
    rows = metrics(tmp_path / "run")
    won, played, games = 1.0, 1.0, 0.0
    for row in rows:
        assert row["episode/reward"] == 0.0
        for _ in range(round(12 * row.get("episode/met/weak", 0.0))):
            won, played, games = 0.99 * won, 0.99 * played + 1, games + 1
        assert row["league/win_rate/weak"] == pytest.approx((won + 1) / (played + 2))
        met = [row.get(f"episode/met/{name}", 0.0) for name in ("weak", "strong")]
        assert sum(met) == pytest.approx(1.0)
    assert games > 2

    broken = break_off(load_recipe(path, ["output=broken"]), 3)
    train(load_recipe(path, ["output=broken"]), resume=True)
    assert metrics(broken) == rows
    assert same(final_weights(broken), final_weights(tmp_path / "run"))

    in_processes(2, part, path, ["output=two"])
    for row, one in zip(metrics(tmp_path / "two"), rows, strict=True):
        for name in [name for name in one if name.startswith(("league/", "episode/met"))]:
            assert row[name] == pytest.approx(one[name], abs=1e-12), name
