"""Self-play: a tiny model learns tic-tac-toe and connect four, measured against who plays best.

    python evidence/games.py --game tic_tac_toe --seeds 0 1 2 --out DIR

A board tokenizer (a token for each sign, of connect four for each column) and a Qwen3 of three
layers. SFT teaches which moves are legal: on games at random, of connect four on the moves of a
player that looks two stones ahead. GRPO by ordinary recipes, one after the other, teaches the rest:
the later ones begin nearer to the first board.
Measured are games in which the model takes its likeliest move, half of them as first player.
A run that was interrupted goes on from its last checkpoint, and what is finished is not run again.
Connect four is played perfectly by the solver of `pip install 'strop[connect-four]'`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from strop import train
from strop.demo.model import TEMPLATE
from strop.engines.draws import DrawKey, uniforms
from strop.engines.engine import Sampling
from strop.engines.local.engine import LocalEngine
from strop.evals.tasks.episodes import played
from strop.recipe.suite import EpisodeTask
from strop.recipe.train.environment import GameRecipe
from strop.rollout.games.alpha_beta import FULL, AlphaBeta
from strop.rollout.games.arena import play
from strop.rollout.games.environment import Rules
from strop.rollout.games.game import Boards, Game, over, random_games
from strop.rollout.games.league import League
from strop.rollout.games.players import shown
from strop.types import Origin, Task

SPECIAL = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"]
SIGNS = "?XO.-123456789\n"
COLUMNS = [
    name + "".join(held).ljust(6, ".")
    for name in "1234567" for n in range(7) for held in product("XO", repeat=n)
]  # fmt: skip
Moved = tuple[Boards, Sequence[int]]
"""A game's boards from the first to the last, and the moves between them."""
PROMPT = [{"role": "user", "content": "?\n"}]


@dataclass(frozen=True, slots=True)
class Phase:
    """A recipe of GRPO: so many `steps` of 8 games for each of `prompts` against `opponents`, up to
    `opening` moves being made at random before a game begins."""

    steps: int
    opponents: tuple[Any, ...]
    opening: int
    prompts: int = 32
    learning_rate: float = 1e-3
    entropy_weight: float = 0.01


@dataclass(frozen=True, slots=True)
class Subject:
    """A game, who plays it best, the size of the model, and how it is taught."""

    game: Any
    best: Any
    positions: int
    phases: tuple[Phase, ...]
    taught: int = 12_800
    """Games that SFT shows."""
    learning_rate: float = 4e-3
    """Of SFT."""
    weaker: tuple[Any, ...] = ()
    """Opponents between the player at random and the best."""
    width: int = 64
    shown_by: int | None = None
    """So many stones ahead looks the player whose moves SFT shows; `None` shows games at random."""
    columns: bool = False
    """Whether six places of a board are one token."""
    opening: int = 0
    """Games against the best player are measured a second time after up to so many moves at
    random, where it would score a half against itself."""


FOUR = str(Path(__file__).with_name("connect_four.py"))
SUBJECTS = {
    "tic_tac_toe": Subject("tic_tac_toe", "perfect", 128, (
        Phase(700, ("perfect", "self", "random"), 6),
        Phase(800, ("perfect", "self"), 4, entropy_weight=0.02),
        Phase(400, ("perfect", "self"), 2, learning_rate=8e-4, entropy_weight=0.02),
    )),
    "connect_four": Subject(
        {"file": FOUR, "class": "ByColumns"}, {"file": FOUR, "class": "Perfect"}, 320, (
            Phase(250, ("self", "random", {"alpha_beta": 2}), 12, prompts=16, learning_rate=5e-4,
                  entropy_weight=0.02),
        ),
        weaker=({"alpha_beta": 2}, {"alpha_beta": 4}), width=96, shown_by=2,
        taught=51_200, learning_rate=2e-3,
        columns=True, opening=12,
    ),
}  # fmt: skip


def write_model(folder: Path, seed: int, about: Subject) -> None:
    """Random weights, and a tokenizer with a token for each sign or column of a board."""
    words = [*SPECIAL, *SIGNS, *(COLUMNS if about.columns else ())]
    numbered = {word: number for number, word in enumerate(words)}
    signs = Tokenizer(WordLevel(numbered, unk_token=SPECIAL[0]))
    whole = Regex(r"[1-7][XO.]{6}|[\s\S]" if about.columns else r"[\s\S]")
    signs.pre_tokenizer = pre_tokenizers.Split(whole, "isolated")
    signs.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=signs, eos_token=SPECIAL[1], pad_token=SPECIAL[0],
        additional_special_tokens=SPECIAL[2:], chat_template=TEMPLATE,
        model_max_length=about.positions,
    )  # fmt: skip
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=about.width, intermediate_size=3 * about.width,
        num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=4, head_dim=16,
        max_position_embeddings=about.positions, tie_word_embeddings=True, bos_token_id=None,
        initializer_range=0.1,  # of a width this small; the usual 0.02 learns nothing for long
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def rules(about: Subject) -> Game:
    """The game itself."""
    return Rules(GameRecipe.model_validate({"game": about.game, "opponents": ["random"]})).game


def searched_games(game: Game, depth: int, count: int, key: DrawKey) -> Iterator[Moved]:
    """Games of connect four in which one player looks `depth` stones ahead, the first one in every
    other game, and whoever plays against it does so at half of its moves and makes the others at
    random."""
    player = AlphaBeta(depth)
    for number in range(count):
        boards, moves = game.reset([number]), []
        chances = uniforms(replace(key, prompt=str(number)), 2 * FULL)
        while not over(game, boards[-1:])[0]:
            hasty, which = chances[2 * len(moves) : 2 * len(moves) + 2]
            legal = np.flatnonzero(game.legal(boards[-1:])[0])
            at_random = len(moves) % 2 != number % 2 and hasty < 0.5
            options = legal if at_random else player.best(boards[-1])
            moves.append(int(options[int(which * len(options))]))
            boards = np.concatenate([boards, game.step(boards[-1:], np.array(moves[-1:]))])
        yield boards, moves


def demonstrations(about: Subject, seed: int) -> Iterator[dict[str, Any]]:
    """Games, each as one of its players saw it."""
    game, key = rules(about), DrawKey(seed, "data")
    games = (
        random_games(game, range(about.taught), key)
        if about.shown_by is None
        else searched_games(game, about.shown_by, about.taught, key)
    )
    for n, (boards, moves) in enumerate(games):
        side, messages = n % 2, []
        for ply in range(side, len(moves), 2):
            said = shown(game, boards[ply], side)
            asked = said if messages else f"{PROMPT[0]['content']}{said}"
            messages += [{"role": "user", "content": asked},
                         {"role": "assistant", "content": game.moves[moves[ply]]}]  # fmt: skip
        yield {"messages": messages}


def write_rows(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def recipes(folder: Path, name: str, seed: int) -> dict[str, dict[str, Any]]:
    """SFT on legal moves, then GRPO against opponents, phase by phase."""
    made: dict[str, dict[str, Any]] = {"sft": {
        "method": "sft", "model": {"path": str(folder / "raw")}, "data": str(folder / "sft.jsonl"),
        "output": str(folder / "sft"), "optim": {"learning_rate": SUBJECTS[name].learning_rate},
        "run": {"epochs": 1, "batch_size": 32}, "seed": seed,
    }}  # fmt: skip
    for number, phase in enumerate(SUBJECTS[name].phases, start=1):
        before = list(made)[-1]
        made[f"grpo-{number}"] = {
            "method": "grpo", "model": {"path": str(folder / before / "final")},
            "data": str(folder / "tasks.jsonl"), "output": str(folder / f"grpo-{number}"),
            "reward": [{"function": "environment"}],
            "objective": {"mini_batches": 2, "epsilon_high": 0.3,
                          "entropy_weight": phase.entropy_weight},
            "rollout": {
                "group_size": 8, "max_tokens": 2,
                "environment": {"game": SUBJECTS[name].game, "opponents": list(phase.opponents),
                                "turns": "together", "random_opening": phase.opening},
            },
            "optim": {"learning_rate": phase.learning_rate, "schedule": "linear",
                      "final_ratio": 0.05},
            "run": {"steps": phase.steps, "batch_size": phase.prompts, "save_every": 25},
            "seed": seed,
        }  # fmt: skip
    return made


def measured(folder: Path, environment: dict[str, Any], games: int) -> dict[str, float]:
    """Shares of games won, drawn, lost and ended by an illegal move, the likeliest move taken."""
    task = EpisodeTask.model_validate({
        "kind": "episode", "name": "games", "data": "none", "environment": environment,
        "sampling": {"temperature": 0, "max_tokens": 2},
    })  # fmt: skip
    tasks = [
        Task(PROMPT, {"side": ("first", "second")[n % 2]}, Origin("games.jsonl", n + 1))
        for n in range(games)
    ]
    found = [r.completions[0] for r in played(task, LocalEngine(str(folder)), tasks, seed=1)]
    return {fact: sum(one.facts.get(fact, 0.0) for one in found) / games
            for fact in ("won", "drawn", "lost", "illegal")}  # fmt: skip


def rated(folder: Path, name: str, pairs: int) -> dict[str, list[float]]:
    """Everybody's Elo above the player at random, with its 95 % interval, sampled at temperature 1.
    The league with its games is kept beside the runs."""
    versions = {
        stage: {"model": str(folder / stage / "final")} for stage in recipes(folder, name, 0)
    }
    about = SUBJECTS[name]
    players = {"random": "random", "best": about.best, **versions}
    league = play(
        League.model_validate({"game": about.game, "players": players}),
        PROMPT, Sampling(max_tokens=2), pairs=pairs, seed=1, opening=2,
    )  # fmt: skip
    league.save(folder / "league.json")
    ratings = league.ratings("random")
    return {one: [round(r.elo), round(r.low), round(r.high)] for one, r in ratings.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--game", default="tic_tac_toe", choices=SUBJECTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--games", type=int, default=1000)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = SUBJECTS[options.game]
    meets = [{"opponents": [one]} for one in ("random", *about.weaker, about.best)]
    if about.opening:
        meets.append({"opponents": [about.best], "random_opening": about.opening})
    for seed in options.seeds:
        folder = options.out / options.game / str(seed)
        if not (folder / "sft/final").exists():
            write_model(folder / "raw", seed, about)
            write_rows(folder / "sft.jsonl", demonstrations(about, seed))
            write_rows(folder / "tasks.jsonl", ({"prompt": PROMPT} for _ in range(1024)))
        for stage, recipe in recipes(folder, options.game, seed).items():
            if not (folder / stage / "final").exists():
                began = time.monotonic()
                train(recipe, resume=(folder / stage / "latest").exists())
                print(f"{stage}: {time.monotonic() - began:.0f} s", flush=True)
            for meet in meets:
                row = measured(
                    folder / stage / "final", {"game": about.game, **meet}, options.games
                )
                print(json.dumps({"seed": seed, "stage": stage, **meet, **row}), flush=True)
        elo = rated(folder, options.game, max(5, options.games // 20))
        print(json.dumps({"seed": seed, "elo": elo}), flush=True)


if __name__ == "__main__":
    main()
