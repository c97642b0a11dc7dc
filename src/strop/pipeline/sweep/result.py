"""What a sweep says: a table, and whether the best value is really better than the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from strop.errors import MissingEvidenceError
from strop.evals.records import mean_scores, read_records
from strop.evals.summary import read_summary
from strop.pipeline.sweep.rungs import Setting
from strop.stats.compare import superiority
from strop.stats.multiple import holm
from strop.tracking.runlog import read_rows

LEVEL = 0.05
MARGIN = "rewards/margins"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting: `Row("objective.beta=0.1", 1, 0.74, {"knowledge/acc": 0.73}, 0.8, 0.02, ...)`.

    `rung` is the last that it reached, `margin` the mean reward margin of the run's last quarter,
    `kl` in nats a token against the reference. `behind` says how far the target lies below the
    best one's, with a 95 % interval, and `worse` whether that is surely not chance (Holm over all
    settings of the last rung); both `None` for the best and for settings that were left behind.
    """

    setting: str
    rung: int
    target: float
    general: Mapping[str, float]
    margin: float | None
    kl: float | None
    behind: tuple[float, float, float] | None = None
    worse: bool | None = None


@dataclass(frozen=True, slots=True)
class SweepResult:
    """All rows, the best first within a rung; `chosen` is the setting to use, and `said` why."""

    target: str
    rows: tuple[Row, ...]
    chosen: str
    said: str

    def plain(self) -> dict[str, Any]:
        return {"target": self.target, "chosen": self.chosen, "said": self.said,
                "rows": [asdict(row) for row in self.rows]}  # fmt: skip


def measured(
    setting: Setting, rung: int, run: Path, evaluated: Path, target: str, general: Sequence[str]
) -> Row:
    """The row of one finished setting. Raises `MissingEvidenceError` for a score that the suite
    lacks."""
    means = mean_scores(read_records(evaluated))
    missing = [name for name in (target, *general) if name not in means]
    if missing:
        raise MissingEvidenceError(
            f"the suite measures no {missing[0]}", where=str(evaluated),
            fix=f"name one of: {', '.join(means)}",
        )  # fmt: skip
    margins = [
        row[MARGIN] for row in read_rows(run / "metrics.jsonl") if row.get(MARGIN) is not None
    ]
    last = margins[-max(1, len(margins) // 4) :]
    summary = read_summary(evaluated) or {}
    return Row(
        setting.said, rung, means[target], {name: means[name] for name in general},
        sum(last) / len(last) if last else None, summary.get("kl"),
    )  # fmt: skip


def decide(
    target: str,
    rows: Sequence[Row],
    evals: Mapping[str, Path],
    own: str | None,
) -> SweepResult:
    """Compare the best of the last rung with its others, and choose.

    `evals` are the eval folders of the last rung by setting; `own` is the setting of the recipe as
    it was written. Of the settings that are not surely worse than the best, the recipe's own is
    kept; else the one with the smallest KL, which is nearest to where training began.
    """
    last = max(row.rung for row in rows)
    final = sorted((row for row in rows if row.rung == last), key=lambda row: -row.target)
    best = final[0]
    compared = _compared(target, best, final[1:], evals)
    equal = [row for row in compared if not row.worse]
    kept = next((row for row in equal if row.setting == own), None)
    chosen = kept or min(equal, key=lambda row: (row.kl is None, row.kl or 0.0))
    ordered = sorted((row for row in rows if row.rung < last),
                     key=lambda row: (-row.rung, -row.target))  # fmt: skip
    return SweepResult(target, (*compared, *ordered), chosen.setting,
                       _said(target, best, equal, chosen, own))  # fmt: skip


def _compared(
    target: str, best: Row, others: Sequence[Row], evals: Mapping[str, Path]
) -> list[Row]:
    ours = _scores(evals[best.setting], target)
    found = []
    for row in others:
        theirs = _scores(evals[row.setting], target)
        items = [item for item in ours if item in theirs]
        found.append(superiority(
            [theirs[item][0] for item in items], [ours[item][0] for item in items],
            clusters=[ours[item][1] for item in items],
        ))  # fmt: skip
    adjusted = holm([one.p_value for one in found])
    rows = [
        Row(row.setting, row.rung, row.target, row.general, row.margin, row.kl,
            (one.estimate, one.low, one.high), p < LEVEL / 2)
        for row, one, p in zip(others, found, adjusted, strict=True)
    ]  # fmt: skip
    return [best, *rows]


def _scores(folder: Path, target: str) -> dict[tuple[str, int], tuple[float, str]]:
    return {
        (record.item, record.sample): (record.score, record.cluster)
        for record in read_records(folder)
        if record.task == target and record.score is not None
    }


def _said(target: str, best: Row, equal: Sequence[Row], chosen: Row, own: str | None) -> str:
    if len(equal) == 1:
        return (f"{best.setting} is the best: {target} {best.target:.3f}, and every other value of "
                "the last rung is surely worse.")  # fmt: skip
    names = ", ".join(row.setting for row in equal)
    why = (
        "the recipe's own value" if chosen.setting == own else "the one nearest to the start by KL"
    )
    return (
        f"{best.setting} has the highest {target}, {best.target:.3f}, but the data does not tell "
        f"{names} apart. Of these take {chosen.setting}, {why}; more items would tell more."
    )
