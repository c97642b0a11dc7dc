"""How much environments hold up the engine: turns as they come against turns together.

    python evidence/waiting.py MODEL [--episodes 128] [--seed 0]

Tools take log-normal times of mean 0.2 s (sigma 1). The same episodes are played twice: each turn
is asked for as soon as its environment has answered, and together, when the slowest has. What is
printed is sampled tokens a second of each, and their ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from typing import Any

from strop.engines.draws import DrawKey
from strop.engines.engine import Sampling, prompted_tasks, requests_of
from strop.engines.local.engine import LocalEngine
from strop.recipe.train.environment import EpisodeLimits
from strop.rollout.environment import Ask, Observation, Said
from strop.rollout.play import Player
from strop.rollout.turn_by_turn import TurnByTurn
from strop.types import Origin, Task

MEAN, SIGMA = 0.2, 1.0
TURNS = 6


class Slow:
    """Answers every turn after a time of its own; the same times for the same episode."""

    def __init__(self, number: int, seed: int) -> None:
        self.draw, self.said = random.Random(f"{seed} {number}"), 0

    async def reset(self, task: Task) -> Observation:
        return Observation()

    async def step(self, said: Said) -> Observation:
        self.said += 1
        mu = -(SIGMA**2) / 2
        await asyncio.sleep(MEAN * self.draw.lognormvariate(mu, SIGMA))
        done = self.said == TURNS
        return Observation(() if done else ({"role": "user", "content": "Go on."},), done=done)

    async def final_reward(self) -> float | None:
        return None

    async def close(self) -> None:
        pass


class Slows:
    tools = None
    rewards = False
    bounds = None

    def __init__(self, seed: int) -> None:
        self.made, self.seed = 0, seed

    def make(self, ask: Ask) -> Slow:
        self.made += 1
        return Slow(self.made, self.seed)

    async def close(self) -> None:
        pass


def played(engine: LocalEngine, requests: Any, turns: str, seed: int) -> tuple[float, int, int]:
    """Seconds, tokens that were sampled, turns."""
    limits = EpisodeLimits.model_validate({"turns": turns, "max_turns": TURNS})
    way = TurnByTurn(Slows(seed), engine.tokenizer(), limits, engine.context())
    player = Player(engine, way, limits)
    began = time.perf_counter()
    episodes = [episode for _, episode in player.generate(requests)]
    seconds = time.perf_counter() - began
    player.close()
    spoken = sum(len(episode.turns) for episode in episodes)
    return seconds, sum(sum(episode.sampled) for episode in episodes), spoken


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("model")
    asked.add_argument("--episodes", type=int, default=128)
    asked.add_argument("--tokens", type=int, default=24)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    engine = LocalEngine(given.model)
    tasks = [
        Task([{"role": "user", "content": f"What is {n} + {n}?"}], {}, Origin("tasks", n))
        for n in range(given.episodes)
    ]
    sampling = Sampling(max_tokens=given.tokens)
    prompts = prompted_tasks(engine.tokenizer(), tasks)
    for number in range(given.rounds):
        requests = requests_of(prompts, sampling, DrawKey(given.seed + number, "training"), 1)
        row: dict[str, Any] = {"round": number}
        for turns in ("together", "as_they_come"):
            seconds, tokens, spoken = played(engine, requests, turns, given.seed + number)
            row[turns] = round(tokens / seconds, 1)
            row[f"{turns}_seconds"], row[f"{turns}_turns"] = round(seconds, 2), spoken
        row["ratio"] = round(row["as_they_come"] / row["together"], 2)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
