"""How right the time left was after 20 steps, from the logs of real runs.

    python evidence/remaining.py RUN [RUN ...]      # folders of strop train, of 40 steps or more

Reads the time of every step, says after the 21st what `strop train` said, and what it then took.
"""

from __future__ import annotations

import argparse
import json
from itertools import accumulate
from pathlib import Path

from strop.tracking.remaining import STEPS, Remaining


def said_and_took(seconds: list[float]) -> tuple[float, float]:
    """Seconds that were said to be left after the first `STEPS` timed steps, and those it took."""
    remaining, ends = Remaining(), list(accumulate(seconds))
    for step, now in enumerate(ends, 1):
        said = remaining.after(step, len(seconds), now)
        if said is not None:
            return said, ends[-1] - now
    raise SystemExit(f"remaining: a run of {len(seconds)} steps is too short")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    print("| run | steps | said, s | took, s | off |\n|---|---|---|---|---|")
    for run in parser.parse_args().runs:
        with (run / "metrics.jsonl").open(encoding="utf-8") as log:
            rows = [json.loads(line) for line in log]
        seconds = [row["step_time"] for row in rows if "step_time" in row]
        if len(seconds) < 2 * STEPS:
            print(f"| {run.name} | {len(seconds)} | too short | | |")
            continue
        said, took = said_and_took(seconds)
        print(f"| {run.name} | {len(seconds)} | {said:.0f} | {took:.0f} | {said / took - 1:+.0%} |")


if __name__ == "__main__":
    main()
