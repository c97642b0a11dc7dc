"""How right the step-time model is, from a synchronous and an asynchronous run of one recipe.

    python evidence/split.py SYNC ASYNC [ASYNC ...] [--staleness S]

SYNC is the folder of a run that sampled and trained in turn, each ASYNC that of one with
`rollout.source: {kind: async}`. Three predictions of the ratio of their step times are compared
with the measured one:

- by means: (g + u) / max(g, u), of SYNC's mean seconds of sampling (g) and of training (u);
- by steps: the same by a bounded queue of SYNC's single steps;
- by its own parts: of ASYNC's own g and u, its step time without the seconds that the generator
  (`async/generator_idle`) or the trainer (`async/trainer_idle`) waited. Where both sides share
  cores, these are longer than SYNC's, and the gap to the first two is what sharing costs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import yaml

from strop.train.preflight.cost.measured import WARM_UP
from strop.train.preflight.cost.period import period, queued


@dataclass(frozen=True, slots=True)
class Steps:
    """Seconds of a run's steps, of their sampling and of their training."""

    step: tuple[float, ...]
    generate: tuple[float, ...]
    update: tuple[float, ...]

    def counted(self, first: int, end: int) -> Steps:
        """Without the first steps of the run, and those from `end` on."""
        begin, end = first - WARM_UP, end - WARM_UP
        return Steps(self.step[begin:end], self.generate[begin:end], self.update[begin:end])


@dataclass(frozen=True, slots=True)
class Row:
    """Ratios of synchronous step time to asynchronous: as measured, and as predicted three ways."""

    name: str
    staleness: int
    measured: float
    by_means: float
    by_steps: float
    by_parts: float

    def line(self) -> str:
        off = (f"{one:.2f} ({one / self.measured - 1:+.0%})" for one in
               (self.by_means, self.by_steps, self.by_parts))  # fmt: skip
        return f"| {self.name} | {self.staleness} | {self.measured:.2f} | {' | '.join(off)} |"


def rows_of(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.jsonl").open(encoding="utf-8") as log:
        return [json.loads(line) for line in log][WARM_UP:]


def synchronous(run: Path) -> Steps:
    """What a run in turn logs: the time of sampling, and the rest of the step."""
    rows = rows_of(run)
    step = tuple(row["step_time"] for row in rows)
    generate = tuple(row["sampling_time"] for row in rows)
    return Steps(step, generate, tuple(a - b for a, b in zip(step, generate, strict=True)))


def asynchronous(run: Path) -> Steps:
    """What a run that samples while it trains logs: how long either side waited for the other."""
    rows = rows_of(run)
    if any("async/trainer_idle" not in row for row in rows):
        raise SystemExit(f"split: {run} was not asynchronous")
    step = tuple(row["step_time"] for row in rows)
    generate = tuple(max(0.0, row["step_time"] - row["async/generator_idle"]) for row in rows)
    update = tuple(max(0.0, row["step_time"] - row["async/trainer_idle"]) for row in rows)
    return Steps(step, generate, update)


def staleness_of(run: Path) -> int:
    recipe = yaml.safe_load((run / "recipe.resolved.yaml").read_text(encoding="utf-8"))
    return int(recipe["rollout"]["source"]["max_staleness"])


def compare(name: str, sync: Steps, ahead: Steps, staleness: int) -> Row:
    """Mean step times, because throughput is steps over the whole time."""
    whole = fmean(sync.step)
    own = (fmean(ahead.generate), fmean(ahead.update))
    in_turn = fmean(sync.generate) + fmean(sync.update)
    return Row(
        name,
        staleness,
        whole / fmean(ahead.step),
        in_turn / period(fmean(sync.generate), fmean(sync.update), staleness).seconds,
        in_turn / queued(sync.generate, sync.update, staleness).seconds,
        whole / period(*own, staleness).seconds,
    )


def table(rows: Sequence[Row]) -> list[str]:
    return [
        "| run | staleness | measured | by means | by steps | by its own parts |",
        "|---|---|---|---|---|---|",
        *(row.line() for row in rows),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("sync", type=Path)
    parser.add_argument("ahead", type=Path, nargs="+")
    parser.add_argument("--staleness", type=int, help="where the resolved recipe does not say")
    given = parser.parse_args()
    before = synchronous(given.sync)
    print(f"{given.sync}: {fmean(before.generate):.3f} s sampling, {fmean(before.update):.3f} s "
          "training")  # fmt: skip
    rows = []
    for run in given.ahead:
        staleness = given.staleness if given.staleness is not None else staleness_of(run)
        rows.append(compare(run.name, before, asynchronous(run), staleness))
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
