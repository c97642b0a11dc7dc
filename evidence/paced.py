"""The planner's step times against runs beside engines that wait, and with updates that wait.

    python evidence/paced.py WORLD --out DIR [--at-once 3]

WORLD is a folder of `evidence/runs.py` (its SFT model in runs/sft/final). An engine is a second
process whose answers wait, and an update sleeps after the optimizer's step, so that waits are most
of a step and runs can be made beside each other. Three kinds of engines:

- `turns`: one answer after the other, so a batch takes as long whatever else is on its way (an
  engine that is bound by its operations);
- `uneven`: the same, but batches and updates take 0.4 to 1.6 times as long as usual;
- `rounds`: every answer takes its tokens times a fixed time, however many there are (an engine
  that is bound by reading its weights).

Each is run in turn, and with a staleness of 1 and of 2. The planner is given the times of the run
in turn alone, as `strop estimate --split --measured` is, and of a short run with a staleness of 1
besides, as with `--measured-beside`. Finished runs are not run again.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from asynchronous import STANDING, Ready, in_turns, recipe_of, waiting
from split import asynchronous, synchronous
from torch.optim.optimizer import register_optimizer_step_post_hook

from strop.engines.server.held import Held
from strop.engines.server.listen import answer_on, listening
from strop.recipe.loading.load import load_recipe
from strop.train.preflight.cost.measured import measured, slowed
from strop.train.preflight.cost.period import generation, queued
from strop.train.run import train
from strop.train.rundir.directory import is_finished

Recipe = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """`Case("turns", 8.0, 8.0)`: seconds that a step's answers and its update are to wait. Answers
    of `rounds` have about `TOKENS` tokens."""

    kind: str
    engine: float
    update: float

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.engine:g}-{self.update:g}"


CASES = (Case("turns", 8.0, 8.0), Case("turns", 4.0, 12.0), Case("turns", 12.0, 4.0),
         Case("uneven", 8.0, 8.0), Case("rounds", 12.0, 6.0))  # fmt: skip
STALENESS = (1, 2)
PROMPTS, GROUP, TOKENS = 8, 4, 24
STEPS, FIRST = 14, 5
"""Steps of a run, and how many are not counted: the first ones fill the queue. Nor are the last,
as many as may be ahead: nothing more is asked for."""
RUNS = {"0": (0, STEPS), "1": (1, STEPS), "2": (2, STEPS), "beside": (1, 8)}
"""Staleness and steps of a case's runs; the last one says how much slower training is there."""


def spread(step: int, of: str) -> float:
    """By how much a batch or an update of `uneven` is longer than usual."""
    return random.Random(f"{of} {step}").uniform(0.4, 1.6)


def in_uneven_turns(seconds: float) -> Ready:
    turn, given, batch = 0.0, 0, PROMPTS * GROUP

    def ready(asked: float, _: int) -> float:
        nonlocal turn, given
        turn = max(turn, asked) + spread(given // batch, "engine") * seconds / batch
        given += 1
        return turn

    return ready


def in_rounds(seconds: float) -> Ready:
    return lambda asked, tokens: asked + tokens * seconds / TOKENS


def ready_of(case: Case) -> Ready:
    if case.kind == "rounds":
        return in_rounds(case.engine)
    if case.kind == "uneven":
        return in_uneven_turns(case.engine)
    return in_turns(case.engine / (PROMPTS * GROUP))


def serve(model: str, case: Case) -> None:
    socket = listening("127.0.0.1", 0)
    address = f"http://127.0.0.1:{socket.getsockname()[1]}"
    answer_on(socket, waiting(Held(model), ready_of(case)), lambda: print(address, flush=True))


@contextmanager
def server(model: Path, case: Case) -> Iterator[str]:
    command = [sys.executable, __file__, "--serve", case.name, str(model)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    try:
        yield running.stdout.readline().strip()
    finally:
        running.terminate()
        running.wait()


def run(case: Case, name: str, world: Path, output: Path) -> None:
    """One run, in a process of its own: its updates sleep."""
    updates = 0

    def sleep(*_: Any) -> None:
        nonlocal updates
        time.sleep(case.update * (spread(updates, "update") if case.kind == "uneven" else 1.0))
        updates += 1

    staleness, steps = RUNS[name]
    register_optimizer_step_post_hook(sleep)
    recipe = recipe_of(world, output)
    recipe["optim"]["learning_rate"] = STANDING
    recipe["run"] = {"steps": steps, "batch_size": PROMPTS}
    ahead = {"kind": "async", "max_staleness": staleness}
    with server(world / "runs/sft/final", case) as url:
        recipe["rollout"] |= {
            "group_size": GROUP, "engine": {"kind": "vllm", "url": url, "at_once": 256},
            "source": ahead if staleness else {"kind": "synchronous"},
        }  # fmt: skip
        train(load_recipe(recipe), overwrite=True)


def predicted(kind: str, sampled: Sequence[float], trained: Sequence[float], ahead: int) -> float:
    """Seconds a step that the planner finds for batches and updates that take so long, with so much
    staleness."""
    sampling, training = fmean(sampled), fmean(trained)

    def batch(overlap: float) -> float:
        return sampling / overlap if kind == "rounds" else sampling

    seconds = generation(batch, training, ahead)
    scaled = [one * seconds / sampling for one in sampled]
    steps = min(len(scaled), len(trained))
    return queued(scaled[:steps], trained[:steps], ahead).seconds


def table(out: Path) -> list[str]:
    """What the planner finds from the run in turn alone, with training slowed as in the short run,
    and with the training times of the asynchronous run itself."""
    lines = [
        "| engine | sampling, s | training, s | the same beside sampling | staleness | measured | "
        "from the run in turn | and the short run | with its own training times |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case, staleness in product(CASES, STALENESS):
        slower = slowed(out / f"{case.name}-beside", measured(out / f"{case.name}-0"))
        before = synchronous(out / f"{case.name}-0").counted(FIRST, STEPS)
        after = asynchronous(out / f"{case.name}-{staleness}").counted(FIRST, STEPS - staleness)
        whole = fmean(before.step)
        times = whole / fmean(after.step)
        found = (whole / predicted(case.kind, before.generate, trained, staleness)
                 for trained in (before.update, [slower * one for one in before.update],
                                 after.update))  # fmt: skip
        said = " | ".join(f"{one:.2f} ({one / times - 1:+.0%})" for one in found)
        lines.append(
            f"| {case.kind} | {fmean(before.generate):.1f} | {fmean(before.update):.1f} | "
            f"{fmean(after.update):.1f} | {staleness} | {times:.2f} | {said} |"
        )
    return lines


def named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("world", type=Path)
    parser.add_argument("--out", type=Path, default=Path("paced"))
    parser.add_argument("--at-once", type=int, default=3, help="runs beside each other")
    parser.add_argument("--serve", metavar="CASE", help="be the engine of a case")
    parser.add_argument("--one", nargs=2, metavar=("CASE", "RUN"), help="make one run")
    given = parser.parse_args()
    world, out = given.world.resolve(), given.out.resolve()
    if given.serve:
        serve(str(given.world), named(given.serve))
        return
    if given.one:
        name, which = given.one
        run(named(name), which, world, out / f"{name}-{which}")
        return

    def make(made: tuple[Case, str]) -> None:
        case, which = made
        if not is_finished(out / f"{case.name}-{which}"):
            subprocess.run([sys.executable, __file__, str(world), "--out", str(out),
                            "--one", case.name, which], check=True)  # fmt: skip

    with ThreadPoolExecutor(given.at_once) as runs:
        list(runs.map(make, product(CASES, RUNS)))
    print("\n".join(table(out)))


if __name__ == "__main__":
    main()
