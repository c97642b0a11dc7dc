"""A long online run that is killed again and again: nothing grows, and every step stands once.

    python -m tests.faults.soak --out DIR                # 2,000 steps, about 20 kills

Prints a JSON object: kills, memory and file handles at the start and at the end of every life, the
largest number of checkpoints that lay there at once, and what was wrong (an empty list).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from strop.demo.write import write_demo
from strop.tracking.runlog import read_rows

STEPS, EVERY, MEAN = 2000, 20, 100
"""Steps in all, between checkpoints, and between kills on average."""

SETTLED = 15
"""Steps of a life before memory is first read: caches fill."""

GROWTH = 30.0
"""MB that a life may grow by per 100 steps, median over lives."""


@dataclass(frozen=True, slots=True)
class Life:
    """One process from its start to its kill (or to the end): memory in MB, open files."""

    first: int
    last: int
    memory: tuple[float, float]
    files: tuple[int, int]


def strop(*args: str) -> list[str]:
    return [sys.executable, "-m", "strop", *args]


def prepare(folder: Path) -> Path:
    """A model that gets some answers right, and the recipe of the soak."""
    if not (folder / "grpo.yaml").exists():
        write_demo(folder, seed=0)
    if not (folder / "runs/sft/final").exists():
        subprocess.run(
            strop("train", str(folder / "sft.yaml"), "--set", "run.steps=300", "--json"),
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    return folder / "grpo.yaml"


def live(recipe: Path, run: Path, steps: int, until: int | None) -> Life:
    """Start or resume; kill -9 once `until` steps more are logged, or let it end."""
    options = [f"run.steps={steps}", f"run.save_every={EVERY}", "model.path=runs/sft/final",
               f"output={run}", "run.batch_size=8"]  # fmt: skip
    sets = [part for option in options for part in ("--set", option)]
    child = subprocess.Popen(
        strop("train", str(recipe), *sets, "--resume", "--json"), stdout=subprocess.DEVNULL
    )
    start = logged(run)
    early: tuple[float, int] | None = None
    latest = (0.0, 0)
    while child.poll() is None:
        done = logged(run) - start
        if done >= SETTLED:
            latest = measured(child.pid) or latest
            early = early or latest
        if until is not None and done >= until:
            child.send_signal(signal.SIGKILL)
        time.sleep(0.2)
    if until is None and child.returncode != 0:
        raise SystemExit(f"the run ended with {child.returncode}")
    first = early or latest
    return Life(start, logged(run), (first[0], latest[0]), (first[1], latest[1]))


def logged(run: Path) -> int:
    """The last step in the log."""
    log = run / "metrics.jsonl"
    lines = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def measured(pid: int) -> tuple[float, int] | None:
    """(resident MB, open files) of a process; `None` if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        files = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None
    resident = next((line for line in status.splitlines() if line.startswith("VmRSS")), None)
    return None if resident is None else (int(resident.split()[1]) / 1024, files)


def soak(folder: Path, steps: int, seed: int) -> dict[str, Any]:
    """The whole run; what it reports is said at the top of this file."""
    recipe, run = prepare(folder), folder / "runs/soak"
    draw = random.Random(seed)
    lives: list[Life] = []
    most = 0
    while not (run / "final").exists():
        left = steps - logged(run)
        until = max(1, round(draw.expovariate(1 / MEAN)))
        lives.append(live(recipe, run, steps, until if until < left else None))
        most = max(most, len(list(run.glob("checkpoint-*"))))
    numbers = [row["step"] for row in read_rows(run / "metrics.jsonl")]
    growth = [
        (life.memory[1] - life.memory[0]) / (life.last - life.first - SETTLED) * 100
        for life in lives
        if life.last - life.first > 2 * SETTLED
    ]
    grown = statistics.median(growth)
    rubbish = [path.name for path in run.iterdir() if path.name.endswith(".tmp")]
    wrong = [
        *(["the log has not every step once"] if numbers != list(range(1, steps + 1)) else []),
        *([f"memory grows by {grown:.1f} MB in 100 steps"] if grown > GROWTH else []),
        *(["open files grow"] if any(life.files[1] > life.files[0] + 2 for life in lives) else []),
        *([f"{most} checkpoints at once"] if most > 3 else []),
        *([f"left behind: {', '.join(rubbish)}"] if rubbish else []),
    ]
    return {
        "steps": steps,
        "kills": len(lives) - 1,
        "memory growth, MB in 100 steps, median": round(grown, 2),
        "checkpoints at once": most,
        "lives": [asdict(life) for life in lives],
        "wrong": wrong,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    report = soak(given.out.resolve(), given.steps, given.seed)
    print(json.dumps(report, indent=1))
    sys.exit(bool(report["wrong"]))


if __name__ == "__main__":
    main()
