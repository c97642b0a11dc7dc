"""What asynchronous training gains in time and costs in accuracy, on the demo's algebra world.

    python evidence/asynchronous.py gain WORLD --out DIR      # beside an engine that waits
    python evidence/asynchronous.py learn WORLD... --out DIR  # accuracy, a world (seed) each
    python evidence/asynchronous.py table --out DIR

WORLD is a folder of `evidence/runs.py` (its SFT model in runs/sft/final). The engine of `gain` is
a second process that gives one answer every so many milliseconds, so that it needs no core of its
own while it waits. Finished runs are not run again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

from fastapi import FastAPI, Request, Response

from strop.engines.server.app import engine_app
from strop.engines.server.held import Held
from strop.engines.server.listen import answer_on, listening
from strop.recipe.loading.load import load_recipe
from strop.train.run import train
from strop.train.rundir.directory import is_finished

Recipe = dict[str, Any]
Ready = Callable[[float, int], float]
"""When an answer of so many tokens is given that was asked for at a time (both in seconds)."""

AHEAD = {"kind": "async", "max_staleness": 2}
CASES = ((1.0, 32), (4.0, 8))
"""How many times as long as an update the engine takes for a step's answers, and how many passes
over the samples an update makes: the more, the less the trainer's own share of HTTP counts."""
STANDING = 1e-8
"""Learning rate: the policy hardly moves, so both runs learn from equally many groups. Else the one
whose groups agree less has more to compute, and the two are not compared at the same work."""
STEPS, WARM_UP = 12, 6
"""Steps of a run, and those that are not counted: the first ones fill the queue, which then holds
answers that were waited for longer than their turn."""


def recipe_of(world: Path, output: Path) -> Recipe:
    return {
        "method": "grpo", "output": str(output), "seed": 0,
        "model": {"path": str(world / "runs/sft/final")},
        "data": str(world / "data/tasks.jsonl"), "text": {"max_length": 96},
        "rollout": {"group_size": 8, "max_tokens": 48},
        "reward": [{"function": "exact_answer"}, {"function": "format_tags", "weight": 0.2}],
        "optim": {"learning_rate": 3e-4, "schedule": "linear", "warmup_ratio": 0.0,
                  "final_ratio": 0.1, "betas": [0.9, 0.95]},
    }  # fmt: skip


def in_turns(seconds: float) -> Ready:
    """One answer after the other, each in so many seconds."""
    turn = 0.0

    def ready(asked: float, _: int) -> float:
        nonlocal turn
        turn = max(turn, asked) + seconds
        return turn

    return ready


def waiting(held: Held, ready: Ready) -> FastAPI:
    """The server's routes; an answer is kept back until it is ready. What is scored is not: a
    trainer that samples ahead waits for its canary's scores, and answers that were asked for
    before would stand in front of them; one that samples in turn has none on their way then."""
    app = engine_app(held)

    @app.middleware("http")
    async def wait(request: Request, call_next: Any) -> Response:
        asked = time.monotonic()
        if request.url.path != "/inference/v1/generate":
            answer: Response = await call_next(request)
            return answer
        scores = (await request.json())["sampling_params"].get("prompt_logprobs") is not None
        given = await call_next(request)
        content = b"".join([part async for part in given.body_iterator])
        if given.status_code == 200 and not scores:
            tokens = len(json.loads(content)["choices"][0]["token_ids"])
            await asyncio.sleep(ready(asked, tokens) - time.monotonic())
        return Response(content, given.status_code, dict(given.headers))

    return app


def serve(model: str, seconds: float) -> None:
    socket = listening("127.0.0.1", 0)
    address = f"http://127.0.0.1:{socket.getsockname()[1]}"
    app = waiting(Held(model), in_turns(seconds))
    answer_on(socket, app, lambda: print(address, flush=True))


@contextmanager
def server(model: Path, seconds: float) -> Iterator[str]:
    command = [sys.executable, "-P", __file__, "serve", str(model), "--seconds", str(seconds)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    try:
        yield running.stdout.readline().strip()
    finally:
        running.terminate()
        running.wait()


def run(recipe: Recipe) -> list[Recipe]:
    """The steps of a run, which is made if it is not there yet."""
    output = Path(recipe["output"])
    if not is_finished(output):
        train(load_recipe(recipe), overwrite=True)
    return [json.loads(line) for line in (output / "metrics.jsonl").open(encoding="utf-8")]


def seconds_of(steps: list[Recipe], name: str) -> float:
    return fmean(float(step[name]) for step in steps[WARM_UP:])


def gain(world: Path, out: Path) -> None:
    """Time an update, then the same run synchronous and asynchronous beside engines so paced."""
    model = world / "runs/sft/final"
    for slower, passes in CASES:
        base = recipe_of(world, out / f"update-{slower:g}")
        base |= {"objective": {"num_iterations": passes}, "run": {"steps": STEPS, "batch_size": 16}}
        base["optim"] |= {"learning_rate": STANDING}
        asked = base["rollout"]["group_size"] * base["run"]["batch_size"]
        alone = run(base)
        update = seconds_of(alone, "step_time") - seconds_of(alone, "sampling_time")
        print(f"an update takes {update:.2f} s", flush=True)
        with server(model, slower * update / asked) as url:
            for name, source in (("synchronous", {"kind": "synchronous"}), ("async", AHEAD)):
                recipe = base | {"output": str(out / f"{name}-{slower:g}")}
                recipe |= {"run": {"steps": STEPS, "batch_size": 16}}
                engine = {"kind": "vllm", "url": url, "at_once": 256}
                recipe["rollout"] = base["rollout"] | {"engine": engine, "source": source}
                run(recipe)


def learn(world: Path, out: Path) -> None:
    """Synchronous with the embedded engine, and asynchronous beside a server: greedy accuracy."""
    for name in ("embedded", "async"):
        recipe = recipe_of(world, out / f"learn-{world.name}-{name}")
        recipe |= {"run": {"steps": 60, "batch_size": 32}}
        recipe["eval"] = {"data": str(world / "data/test_100.jsonl"), "every": 5,
                          "temperature": 0.0, "reward": [{"function": "exact_answer"}]}  # fmt: skip
        with server(Path(recipe["model"]["path"]), 0.0) as url:
            if name == "async":
                recipe["rollout"] |= {"engine": {"kind": "vllm", "url": url}, "source": AHEAD}
            run(recipe)


def table(out: Path) -> None:
    print("| engine / update | update, s | synchronous, s | asynchronous, s | ratio | limit |"
          "\n|---|---|---|---|---|---|")  # fmt: skip
    for slower, _ in CASES:
        before, after = (run({"output": str(out / f"{name}-{slower:g}")})
                         for name in ("synchronous", "async"))  # fmt: skip
        whole, ahead = seconds_of(before, "step_time"), seconds_of(after, "step_time")
        update = whole - seconds_of(before, "sampling_time")
        limit = (1 + slower) / max(1, slower)
        print(f"| {slower:g} | {update:.2f} | {whole:.2f} | {ahead:.2f} | {whole / ahead:.2f} | "
              f"{limit:.2f} |")  # fmt: skip
    print("\n| world | embedded | async, 2 | staleness, mean | effective sample |"
          "\n|---|---|---|---|---|")  # fmt: skip
    for embedded in sorted(out.glob("learn-*-embedded")):
        ahead = run({"output": str(embedded).replace("-embedded", "-async")})
        before, after = (
            steps[-1]["eval_reward"] for steps in (run({"output": str(embedded)}), ahead)
        )
        stale = fmean(step["async/staleness"] for step in ahead)
        ess = fmean(step["mismatch/ess"] for step in ahead if "mismatch/ess" in step)
        name = embedded.name.split("-", 1)[1].removesuffix("-embedded")
        print(f"| {name} | {before:.2f} | {after:.2f} | {stale:.2f} | {ess:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["gain", "learn", "table", "serve"])
    parser.add_argument("where", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("async"))
    parser.add_argument("--seconds", type=float, default=0.0)
    given = parser.parse_args()
    if given.what == "serve":
        serve(given.where[0], given.seconds)
    elif given.what == "table":
        table(given.out.resolve())
    else:
        for world in given.where:
            {"gain": gain, "learn": learn}[given.what](Path(world).resolve(), given.out.resolve())


if __name__ == "__main__":
    main()
