"""How right the time left is, from the logs of real runs.

    python evidence/remaining.py RUN [RUN ...] [--each]

takes folders of strop train, of 40 steps or more. After the 21st step, and in the middle of a run,
it says what is left: as `strop train` does (the median of the latest 20 steps), and by the mean of
all steps but the first. Both are compared with the time that the rest took. Logs hold the time of
steps alone, so evals and checkpoints are not part of it.

Two more ways say what bounds a forecast of online runs, whose groups come to agree and are then not
learnt from. One follows that share by a power law; the other is told what work is to come, and only
the speeds are those of the past.
"""

from __future__ import annotations

import argparse
import json
import math
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
    """A run by its steps: `Log("grpo-0", "online", (1.9, 2.1, ...), (0.8, ...), (5400.0, ...),
    (0.4, ...))`. Of every step its seconds, those of them that sampled, the tokens that were
    sampled, and the share of groups that were learnt from."""

    name: str
    kind: str
    seconds: tuple[float, ...]
    sampling: tuple[float, ...]
    tokens: tuple[float, ...]
    learnt: tuple[float, ...]


def by_remaining(log: Log, step: int) -> float:
    """What `strop train` says after this step."""
    remaining, said = Remaining(), None
    for number, now in enumerate(accumulate(log.seconds[:step]), 1):
        said = remaining.after(number, len(log.seconds), now, log.seconds[number - 1])
    assert said is not None, f"a run of {len(log.seconds)} steps is too short"
    return said


def by_mean(log: Log, step: int) -> float:
    """The mean of all steps but the first, for each of the rest."""
    return fmean(log.seconds[1:step]) * (len(log.seconds) - step)


def by_known_work(log: Log, step: int) -> float:
    """Tokens to come, and the share of them that is learnt from, as if they were known; the speeds
    are those of all steps so far but the first."""
    work = [a * b for a, b in zip(log.tokens, log.learnt, strict=True)]
    training = sum(log.seconds[1:step]) - sum(log.sampling[1:step])
    sampling = sum(log.sampling[1:step]) / sum(log.tokens[1:step])
    learning = training / max(1.0, sum(work[1:step]))
    return sampling * sum(log.tokens[step:]) + learning * sum(work[step:])


def by_trend(log: Log, step: int) -> float:
    """Groups that are learnt from become fewer as a power of the step, fitted to the logarithms of
    all steps so far (an exponent of 0 to 1); the level and the speeds are the latest `STEPS`'."""
    numbers = range(2, step + 1)
    shares = log.learnt[1:step]
    over = [math.log(number) for number in numbers]
    found = [math.log(max(0.01, share)) for share in shares]
    middle, level = fmean(over), fmean(found)
    slope = sum((a - middle) * (b - level) for a, b in zip(over, found, strict=True))
    power = min(1.0, max(0.0, -slope / sum((a - middle) ** 2 for a in over)))
    recent = range(step - STEPS, step)
    each = [(log.seconds[n] - log.sampling[n]) / log.learnt[n] for n in recent
            if log.learnt[n] > 0]  # fmt: skip
    if not each:
        return by_remaining(log, step)
    scale = sum(log.learnt[n] for n in recent) / sum((n + 1) ** -power for n in recent)
    later = range(step + 1, len(log.seconds) + 1)
    learning = median(each) * scale * sum(number**-power for number in later)
    return median(log.sampling[n] for n in recent) * len(later) + learning


WAYS: Mapping[str, Callable[[Log, int], float]] = {
    "mean of all": by_mean,
    f"median of {STEPS}": by_remaining,
}
ONLINE: Mapping[str, Callable[[Log, int], float]] = {
    **WAYS,
    "power law of what is learnt from": by_trend,
    "speeds so far, future work known": by_known_work,
}


def moments(log: Log) -> dict[str, int]:
    """The steps after which a forecast is judged."""
    return {f"step {STEPS + 1}": STEPS + 1, "half": max(STEPS + 1, len(log.seconds) // 2)}


def off(log: Log, way: str, step: int) -> float:
    """By how much of what it took a forecast was too long (above 0) or too short."""
    return ONLINE[way](log, step) / sum(log.seconds[step:]) - 1


def read(run: Path) -> Log | None:
    """The log of a run; nothing for one that is too short."""
    with (run / "metrics.jsonl").open(encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if "step_time" in row]
    if len(rows) < 2 * STEPS:
        return None
    return Log(
        run.name,
        "online" if "sampling_time" in rows[0] else "offline",
        tuple(row["step_time"] for row in rows),
        tuple(row.get("sampling_time", 0.0) for row in rows),
        tuple(row.get("num_tokens", 0.0) for row in rows),
        tuple(1.0 - row.get("frac_reward_zero_std", 0.0) for row in rows),
    )


def table(logs: Sequence[Log]) -> list[str]:
    """For every kind, moment and way: how many are near, and how far off they usually are."""
    lines = [
        "| runs | said at | by | within 25 % | usually off | middle |",
        "|---|---|---|---|---|---|",
    ]
    for kind in sorted({log.kind for log in logs}):
        mine = [log for log in logs if log.kind == kind]
        for moment in moments(mine[0]):
            for way in ONLINE if kind == "online" else WAYS:
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
