"""Self-play: a tiny model learns tic-tac-toe and connect four, measured against who plays best.

    python evidence/games.py --game tic_tac_toe --seeds 0 1 2 --out DIR

A board tokenizer (a token for each sign) and a Qwen3 of three layers. SFT on games at random
teaches which moves are legal, and nothing about which are good; GRPO by an ordinary recipe teaches
the rest.
Measured are games in which the model takes its likeliest move, half of them as first player.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from strop import train
from strop.demo.model import TEMPLATE
from strop.engines.draws import DrawKey
from strop.engines.local.engine import LocalEngine
from strop.evals.tasks.episodes import played
from strop.recipe.suite import EpisodeTask
from strop.rollout.games.game import random_games
from strop.rollout.games.opponents import GAMES
from strop.rollout.games.players import shown
from strop.types import Origin, Task

SPECIAL = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"]
SIGNS = "?XO.-123456789\n"
PROMPT = [{"role": "user", "content": "?\n"}]
GAMES_OF: dict[str, dict[str, Any]] = {
    "tic_tac_toe": {
        "best": "perfect", "width": 64, "positions": 128, "games": 12800, "steps": 400,
        "opponents": ["random", "self", "perfect"], "opening": 6,
    },
    "connect_four": {
        "best": {"alpha_beta": 6}, "width": 64, "positions": 1536, "games": 2000, "steps": 100,
        "opponents": ["random", "self"], "opening": 12,
    },
}  # fmt: skip


def write_model(folder: Path, seed: int, width: int, positions: int) -> None:
    """Random weights, and a tokenizer with a token for each sign of a board."""
    words = {sign: number for number, sign in enumerate([*SPECIAL, *SIGNS])}
    signs = Tokenizer(WordLevel(words, unk_token=SPECIAL[0]))
    signs.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    signs.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=signs, eos_token=SPECIAL[1], pad_token=SPECIAL[0],
        additional_special_tokens=SPECIAL[2:], chat_template=TEMPLATE, model_max_length=positions,
    )  # fmt: skip
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=3 * width,
        num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=4, head_dim=16,
        max_position_embeddings=positions, tie_word_embeddings=True, bos_token_id=None,
        initializer_range=0.1,  # of a width this small; the usual 0.02 learns nothing for long
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def demonstrations(name: str, count: int, key: DrawKey, *, won: bool) -> Iterator[dict[str, Any]]:
    """Games at random, each as one of its players saw it: by turns, or as the one who won it."""
    game = GAMES[name]()
    for n, (boards, moves) in enumerate(random_games(game, range(count), key)):
        side, messages = n % 2, []
        if won:
            worth = game.outcome(boards[-1:])[0]
            if worth.max() <= 0:
                continue
            side = int(worth.argmax())
        for ply in range(side, len(moves), 2):
            said = shown(game, boards[ply], side)
            asked = said if messages else f"{PROMPT[0]['content']}{said}"
            messages += [{"role": "user", "content": asked},
                         {"role": "assistant", "content": game.moves[moves[ply]]}]  # fmt: skip
        yield {"messages": messages}


def write_rows(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def recipes(folder: Path, name: str, seed: int, steps: int) -> dict[str, dict[str, Any]]:
    """SFT on legal moves, then GRPO against opponents."""
    about = GAMES_OF[name]
    sft, winners = (
        {
            "method": "sft", "model": {"path": str(folder / start)},
            "data": str(folder / f"{stage}.jsonl"), "output": str(folder / stage),
            "optim": {"learning_rate": rate}, "run": {"epochs": 1, "batch_size": 32}, "seed": seed,
        }
        for stage, start, rate in (("sft", "raw", 4e-3), ("winners", "sft/final", 2e-3))
    )  # fmt: skip
    grpo = {
        "method": "grpo", "model": {"path": str(folder / "winners/final")},
        "data": str(folder / "tasks.jsonl"), "output": str(folder / "grpo"),
        "reward": [{"function": "environment"}],
        "objective": {"num_iterations": 2, "mini_batches": 4, "entropy_weight": 0.03},
        "rollout": {
            "group_size": 8, "max_tokens": 2,
            "environment": {"game": name, "opponents": about["opponents"],
                            "turns": "together", "random_opening": about["opening"]},
        },
        "optim": {"learning_rate": 5e-4, "schedule": "constant", "final_ratio": 1.0},
        "run": {"steps": steps, "batch_size": 32, "save_every": 25}, "seed": seed,
    }  # fmt: skip
    return {"sft": sft, "winners": winners, "grpo": grpo}


def measured(folder: Path, name: str, opponent: Any, games: int) -> dict[str, float]:
    """Shares of games won, drawn, lost and ended by an illegal move, the likeliest move taken."""
    task = EpisodeTask.model_validate({
        "kind": "episode", "name": "games", "data": "none", "environment":
        {"game": name, "opponents": [opponent]}, "sampling": {"temperature": 0, "max_tokens": 2},
    })  # fmt: skip
    tasks = [
        Task(PROMPT, {"side": ("first", "second")[n % 2]}, Origin("games.jsonl", n + 1))
        for n in range(games)
    ]
    found = [r.completions[0] for r in played(task, LocalEngine(str(folder)), tasks, seed=1)]
    return {fact: sum(one.facts.get(fact, 0.0) for one in found) / games
            for fact in ("won", "drawn", "lost", "illegal")}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--game", default="tic_tac_toe", choices=GAMES_OF)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--games", type=int, default=1000)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = GAMES_OF[options.game]
    for seed in options.seeds:
        folder = options.out / options.game / str(seed)
        if not (folder / "sft/final").exists():
            write_model(folder / "raw", seed, about["width"], about["positions"])
            for stage, key in (
                ("sft", DrawKey(seed, "data")),
                ("winners", DrawKey(seed, "data", 1)),
            ):
                games = demonstrations(options.game, about["games"], key, won=stage == "winners")
                write_rows(folder / f"{stage}.jsonl", games)
            write_rows(folder / "tasks.jsonl", ({"prompt": PROMPT} for _ in range(1024)))
        made = recipes(folder, options.game, seed, options.steps or about["steps"])
        for stage in ("sft", "winners", "grpo"):
            if not (folder / stage / "final").exists():
                began = time.monotonic()
                train(made[stage])
                print(f"{stage}: {time.monotonic() - began:.0f} s", flush=True)
            for opponent in ("random", about["best"]):
                row = measured(folder / stage / "final", options.game, opponent, options.games)
                print(json.dumps({"seed": seed, "stage": stage, "against": opponent, **row}),
                      flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
