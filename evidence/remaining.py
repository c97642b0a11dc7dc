"""How right the time left is, from the logs of real runs.

    python evidence/remaining.py RUN [RUN ...] [--each]

takes folders of strop train, of 40 steps or more. After the 21st step, and in the middle of a run,
it says what is left: as `strop train` does (the median of the latest 20 steps), and by the mean of
all steps but the first. Both are compared with the time that the rest took. Logs hold the time of
steps alone, so evals and checkpoints are not part of it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import fmean, median

from strop.tracking.remaining import STEPS, Remaining

NEAR = 0.25
"""A forecast is near that is off by at most so much of what it took."""


@dataclass(frozen=True, slots=True)
class Log:
    """A run by the seconds of its steps: `Log("grpo-0", "online", (1.9, 2.1, ...))`."""

    name: str
    kind: str
    seconds: tuple[float, ...]


def by_remaining(seconds: Sequence[float], step: int) -> float:
    """What `strop train` says after this step."""
    remaining, said = Remaining(), None
    for number, now in enumerate(accumulate(seconds[:step]), 1):
        said = remaining.after(number, len(seconds), now, seconds[number - 1])
    assert said is not None, f"a run of {len(seconds)} steps is too short"
    return said


def by_mean(seconds: Sequence[float], step: int) -> float:
    """The mean of all steps but the first, for each of the rest."""
    return fmean(seconds[1:step]) * (len(seconds) - step)


WAYS: Mapping[str, Callable[[Sequence[float], int], float]] = {
    "mean of all": by_mean,
    f"median of {STEPS}": by_remaining,
}


def moments(log: Log) -> dict[str, int]:
    """The steps after which a forecast is judged."""
    return {f"step {STEPS + 1}": STEPS + 1, "half": max(STEPS + 1, len(log.seconds) // 2)}


def off(log: Log, way: str, step: int) -> float:
    """By how much of what it took a forecast was too long (above 0) or too short."""
    return WAYS[way](log.seconds, step) / sum(log.seconds[step:]) - 1


def read(run: Path) -> Log | None:
    """The log of a run; nothing for one that is too short."""
    with (run / "metrics.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    seconds = tuple(row["step_time"] for row in rows if "step_time" in row)
    if len(seconds) < 2 * STEPS:
        return None
    return Log(run.name, "online" if "sampling_time" in rows[0] else "offline", seconds)


def table(logs: Sequence[Log]) -> list[str]:
    """For every kind, moment and way: how many are near, and how far off they usually are."""
    lines = [
        "| runs | said at | by | within 25 % | usually off | middle |",
        "|---|---|---|---|---|---|",
    ]
    for kind in sorted({log.kind for log in logs}):
        mine = [log for log in logs if log.kind == kind]
        for moment in moments(mine[0]):
            for way in WAYS:
                offs = [off(log, way, moments(log)[moment]) for log in mine]
                near = sum(abs(one) <= NEAR for one in offs) / len(offs)
                lines.append(
                    f"| {len(mine)} {kind} | {moment} | {way} | {near:.0%} "
                    f"| {median(map(abs, offs)):.1%} | {median(offs):+.1%} |"
                )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--each", action="store_true", help="a line for every run, too")
    given = parser.parse_args()
    logs = [log for run in given.runs if (log := read(run)) is not None]
    if not logs:
        raise SystemExit(f"remaining: no run has {2 * STEPS} steps")
    for log in logs if given.each else ():
        offs = (f"{way} {off(log, way, STEPS + 1):+.0%}" for way in WAYS)
        print(f"{log.name}: {len(log.seconds)} steps, after {STEPS + 1}: {', '.join(offs)}")
    print("\n".join(table(logs)))


if __name__ == "__main__":
    main()
