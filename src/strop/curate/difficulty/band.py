"""Tasks by how often a model solves them: what it always or never solves teaches it nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from strop.curate.asking import AT_ONCE, Advance, Drawing, batches, engine_of, quiet
from strop.curate.manifest import Output, expect_free, records_of, writing_records
from strop.curate.underway import Underway
from strop.data.bad_rows import BadRow
from strop.data.records import task as parse_task
from strop.engines.engine import Engine, sampling_of
from strop.errors import UnscoredError
from strop.evals.decode.estimators import pass_at
from strop.recipe.curate import BANDS, Band, BandSettings
from strop.recipe.train.data import DataSource
from strop.rewards.compose import Reward
from strop.stats.share import Share, share
from strop.types import Answered, Failure, Task


@dataclass(frozen=True, slots=True)
class PassRate:
    """How often a task was solved: `PassRate(passed=2, scored=8)`; an answer that could not be
    scored is not among the `scored`."""

    passed: int
    scored: int

    @property
    def rate(self) -> float:
        """Unbiased for the chance that the model solves the task."""
        return self.passed / self.scored

    def band(self, low: float, high: float) -> Band:
        """Which band this rate is in; `low` and `high` belong to `medium`."""
        if self.passed == 0:
            return "never"
        if self.passed == self.scored:
            return "always"
        return "hard" if self.rate < low else "easy" if self.rate > high else "medium"

    def informative(self, k: int) -> float:
        """Unbiased chance that k answers do not all pass and do not all fail: that a group of k
        teaches anything. Over all k-subsets of the answers: 1 - (C(c, k) + C(n - c, k)) / C(n, k).
        """
        failed = self.scored - self.passed
        equal = math.comb(self.passed, k) + math.comb(failed, k)
        return 1.0 - equal / math.comb(self.scored, k)


@dataclass(frozen=True, slots=True)
class BandReport:
    """How many tasks are in each band, and what the model makes of all of them.

    `BandReport(tasks=100, kept=61, unscored=1, partly=0, samples=8, bands={"never": 20, ...},
    pass_rate=Share(0.44, 0.38, 0.5), pass_at={1: Share(...), 8: Share(...)},
    informative={2: Share(...), 8: Share(...)}, hidden=0.3694, failures=())`. `unscored` tasks have
    no scored answer, `partly` have fewer than `samples`. `pass_at` is the share of tasks that k
    answers solve, `informative` the share of which k answers disagree, both unbiased with 95 %
    intervals, over the tasks with k scored answers. `hidden` is the highest pass rate that a task
    of `never` may still have (one-sided, 95 %).
    """

    tasks: int
    kept: int
    unscored: int
    partly: int
    samples: int
    bands: Mapping[Band, int]
    pass_rate: Share | None
    pass_at: Mapping[int, Share]
    informative: Mapping[int, Share]
    hidden: float
    failures: tuple[Failure, ...] = ()

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def sentence(self) -> str:
        bands = ", ".join(f"{name} {count}" for name, count in self.bands.items())
        mean = "unknown" if self.pass_rate is None else f"{self.pass_rate.mean:.3f}"
        return (f"{self.kept} of {self.tasks} tasks kept ({bands}, unscored {self.unscored}), "
                f"pass rate {mean}")  # fmt: skip


def band(
    inputs: Sequence[DataSource],
    output: Path | None,
    settings: BandSettings,
    *,
    overwrite: bool = False,
    engine: Engine | None = None,
    advance: Advance = quiet,
) -> BandReport:
    """Keep the tasks of the bands that `settings.keep` names, with `pass_rate`, `pass_samples` and
    `band` as columns; the others go to the dropped rows by their band, or as `unscored`.

    Without an output nothing is asked: the tasks are read and the reward's columns looked for.
    Raises `UnscoredError` where no answer at all could be scored.
    """
    reward = Reward(settings.reward)
    tasks = 0
    for part in batches(_tasks(inputs, Output(None)), AT_ONCE):
        reward.expect_columns(part)
        tasks += len(part)
    if output is None:
        return _Tally(settings, tasks).report()
    expect_free(output, overwrite=overwrite)
    asked = engine or engine_of(settings, output)
    underway = Underway(output)
    drawing = Drawing(asked, sampling_of(settings.sampling), settings.samples, settings.seed)
    tally = _Tally(settings)
    given = settings.plain() | {"engine": dict(asked.identity())}
    with writing_records(output, "band", inputs, given, overwrite=overwrite) as written:
        said = (
            Answered(task, answers)
            for task, answers in drawing.answers(_tasks(inputs, written), underway, advance)
        )
        for part in batches(said, max(1, AT_ONCE // settings.samples)):
            for task, rate in tally.judged(part, reward):
                _place(task, rate, settings, written)
        report = tally.report()
        if report.tasks and report.unscored == report.tasks:
            raise UnscoredError(
                f"not one answer to {report.tasks} tasks could be scored: "
                + ("; ".join(f"{f.component}: {f.error}" for f in report.failures)
                   or "the reward returned None for all"),
                fix="call the reward on one completion by hand and mend it",
            )  # fmt: skip
    underway.close()
    return report


def _tasks(inputs: Sequence[DataSource], output: Output) -> Iterator[Task]:
    for record in records_of(inputs, output, parse=parse_task):
        assert isinstance(record, Task)
        yield record


def _place(task: Task, rate: PassRate | None, settings: BandSettings, written: Output) -> None:
    """Write a task with its columns, or drop it."""
    if rate is None:
        bad = BadRow("unscored", "no answer could be scored", task.origin, excess=True)
        written.drop(bad, task)
        return
    name = rate.band(settings.low, settings.high)
    found = {"pass_rate": rate.rate, "pass_samples": rate.scored, "band": name}
    marked = replace(task, columns={**task.columns, **found})
    if name in settings.keep:
        written.keep(marked)
    else:
        reason = f"{rate.passed} of {rate.scored} answers passed"
        written.drop(BadRow(name, reason, task.origin, excess=True), marked)


@dataclass(slots=True)
class _Tally:
    """Pass rates as they come; `tasks` counts those that were never asked."""

    settings: BandSettings
    tasks: int = 0
    rates: list[PassRate | None] = field(default_factory=list)
    failures: dict[tuple[str, str], Failure] = field(default_factory=dict)

    def judged(
        self, part: Sequence[Answered], reward: Reward
    ) -> Iterator[tuple[Task, PassRate | None]]:
        """Every task of a part with its pass rate; `None` where no answer was scored."""
        judged = reward.judge_rollouts(part)
        for failure in judged.failures:
            known = self.failures.get((failure.component, failure.error))
            count = failure.count + (known.count if known else 0)
            self.failures[failure.component, failure.error] = replace(failure, count=count)
        label, samples = self.settings.reward[0].label, self.settings.samples
        for number, one in enumerate(part):
            scores = judged.scores[number * samples : (number + 1) * samples]
            values = [score.components[label] for score in scores]
            known_values = [value for value in values if value is not None]
            passed = sum(value >= self.settings.right for value in known_values)
            rate = PassRate(passed, len(known_values)) if known_values else None
            self.rates.append(rate)
            yield one.task, rate

    def report(self) -> BandReport:
        known = [rate for rate in self.rates if rate is not None]
        samples, settings = self.settings.samples, self.settings
        counts = Counter(rate.band(settings.low, settings.high) for rate in known)
        powers = [2**e for e in range(samples.bit_length()) if 2**e <= samples]
        ks = sorted({*powers, samples})
        return BandReport(
            tasks=self.tasks or len(self.rates),
            kept=sum(counts[name] for name in settings.keep),
            unscored=len(self.rates) - len(known),
            partly=sum(rate.scored < samples for rate in known),
            samples=samples,
            bands={name: counts[name] for name in BANDS},
            pass_rate=_mean([rate.rate for rate in known]),
            pass_at=_at(known, ks, _solved),
            informative=_at(known, [k for k in ks if k > 1], PassRate.informative),
            hidden=1.0 - 0.05 ** (1 / samples),
            failures=tuple(self.failures.values()),
        )


def _solved(rate: PassRate, k: int) -> float:
    """Chance that one of k answers passes (Chen et al. 2021, arXiv 2107.03374, equation 1)."""
    right = [True] * rate.passed + [False] * (rate.scored - rate.passed)
    return pass_at(right, k)


def _at(rates: Sequence[PassRate], ks: Sequence[int], chance: Any) -> dict[int, Share]:
    found = {k: _mean([chance(rate, k) for rate in rates if rate.scored >= k]) for k in ks}
    return {k: mean for k, mean in found.items() if mean is not None}


def _mean(values: Sequence[float]) -> Share | None:
    """With its 95 % interval over tasks."""
    return share(values, range(len(values))) if values else None
