"""Measures a dev suite on the model in training and finds the best checkpoint by it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from strop.data.overlap import SHOWN, overlap
from strop.data.records import preference
from strop.data.sources import read
from strop.distributed.deal import share_of
from strop.distributed.world import ALONE, World
from strop.engines.engine import Engine
from strop.engines.local.engine import LocalEngine
from strop.errors import DataError, RecipeError
from strop.evals.jobs import EvalSetup, jobs_of
from strop.evals.measure import measure, measure_engine
from strop.evals.tasks.choice import LENGTHS
from strop.evals.tasks.safety import ANSWERED, REFUSED
from strop.evals.tasks.win_rate import NAME as WIN_RATE
from strop.model.logprobs import eval_mode
from strop.model.network import Network, Policy, ScalarNetwork
from strop.model.sharding import whole_weights
from strop.model.teacher import StandIn
from strop.recipe.loading.load import load
from strop.recipe.suite import (
    AnyTask,
    ChoiceTask,
    EpisodeTask,
    EvalTask,
    GenerateTask,
    LmEvalTask,
    PerplexityTask,
    PreferenceTask,
    PythonTask,
    SafetyTask,
    Suite,
    WinRateTask,
)
from strop.recipe.train.dev import DevRecipe
from strop.recipe.train.methods import Recipe, method_of
from strop.text.render import preference_tree
from strop.tracking.phases import phase
from strop.tracking.runlog import read_rows
from strop.train.teachers.build import Teaching
from strop.train.teachers.recorded import Recorded
from strop.train.teachers.served import ServedTeacher
from strop.types import Preference, Record, StepRecord, Task

FORWARD = 64
"""Pairs that a reward model scores in one forward."""

ANY = "..."
"""Placeholder for score names that only a task written in Python knows."""


@dataclass(frozen=True, slots=True)
class Best:
    """The highest `dev.metric` so far and the step it was measured at: `Best(40, 0.61)`."""

    step: int
    score: float


def best_of(best: Best | None, row: Mapping[str, Any], metric: str) -> Best | None:
    """The better of `best` and a row of the log; the earlier of two equal ones.

    Step 0 does not count: it is the starting model, not a checkpoint of the run.
    """
    score = row.get(f"dev/{metric}")
    if score is None or not math.isfinite(score) or row["step"] == 0:
        return best
    return best if best is not None and score <= best.score else Best(row["step"], score)


def find_best(folder: Path, metric: str) -> Best | None:
    """The best checkpoint of a run by its log; what a rollback dropped does not count."""
    log, best = folder / "metrics.jsonl", None
    for row in read_rows(log) if log.exists() else ():
        if (folder / f"checkpoint-{row['step']}").is_dir():
            best = best_of(best, row, metric)
    return best


def start_score(folder: Path, metric: str) -> float | None:
    """The model's score before step 1, from the run's log; `None` if it was not measured then (a
    run resumed with --force-resume may have got its dev suite later)."""
    score = next(read_rows(folder / "metrics.jsonl")).get(f"dev/{metric}")
    return None if score is None else float(score)


class Dev:
    """The dev suite of a run that is under way."""

    def __init__(
        self,
        recipe: DevRecipe,
        suite: Suite,
        network: Network,
        folder: Path,
        world: World = ALONE,
    ) -> None:
        self.recipe, self.suite, self.network = recipe, suite, network
        self.folder, self.world = folder, world
        self.best: Best | None = None
        self.find_best()

    def find_best(self) -> None:
        """Find the best of the checkpoints that are there."""
        self.best = self.world.first(lambda: find_best(self.folder, self.recipe.metric))

    @property
    def best_step(self) -> int | None:
        """The step of the best checkpoint; none before the first measurement after step 0."""
        return None if self.best is None else self.best.step

    def start(self, total: int) -> StepRecord:
        """Measure the model before step 1; raises `RecipeError` if a score of the recipe is
        missing."""
        metrics = self.measure()
        found = [name.removeprefix("dev/") for name in metrics]
        for name in (self.recipe.metric, *self.recipe.general):
            if name not in found:
                raise _unknown(name, self.recipe, found)
        return StepRecord(0, total, metrics)

    def of_teacher(self, teaching: Teaching | None) -> dict[str, float]:
        """`teacher/<score>` of the task that `metric` is of, with the student's prompts, from a
        teacher that can be asked on its own. One that is told more is not measured: a suite holds
        no hints for it."""
        if teaching is None or teaching.informed is not None:
            return {}
        teacher = teaching.teacher
        if isinstance(teacher, Recorded):
            return {}
        weights: StandIn = nullcontext
        if isinstance(teacher, ServedTeacher):
            engine: Engine = teacher.engine
        else:
            same = replace(teacher.policy, tokenizer=self.network.tokenizer)
            engine, weights = LocalEngine("teacher", same), teacher.weights
        with phase("evaluation"), torch.no_grad(), _same_draws(self.network), weights():
            scores = measure_engine(self._of_metric(), engine, self.world)
        return {f"teacher/{name}": value for name, value in scores.items()}

    def _of_metric(self) -> Suite:
        """The suite with the task alone that the metric is of."""
        name = self.recipe.metric
        tasks = [one for one in self.suite.tasks if f"{name}/".startswith(f"{one.name}/")]
        return self.suite.model_copy(update={"tasks": tasks})

    def expect_better(self, start: StepRecord, taught: Mapping[str, float]) -> None:
        """Raise `RecipeError` for a teacher below the model that the run starts from."""
        name = self.recipe.metric
        own, theirs = start.metrics[f"dev/{name}"], taught.get(f"teacher/{name}")
        if theirs is not None and theirs < own:
            raise RecipeError(
                f"the teacher is worse than the student: {name} {theirs:.3f} against {own:.3f} on "
                "the dev suite, so the student would unlearn what it can do",
                where=self.recipe.suite,
                fix="take a better teacher; where so few items cannot tell them apart, measure "
                "more, or pass --force",
            )

    def measure(self) -> dict[str, float]:
        """`dev/<score>` of every score, of which every data rank measures some items; the run's
        dropout mode and random streams stay as they are."""
        network = self.network
        with (
            whole_weights(network),
            phase("evaluation"),
            torch.no_grad(),
            eval_mode(network.model),
            _same_draws(network),
        ):
            if isinstance(network, Policy):
                scores = measure(self.suite, network, self.world)
            else:
                assert isinstance(network, ScalarNetwork)
                scores = _preferred(self.suite, network, self.world)
        return {f"dev/{name}": value for name, value in scores.items()}

    def watch(self, steps: Iterator[StepRecord]) -> Iterator[StepRecord]:
        """The same steps, with the scores where they are due."""
        for record in steps:
            if record.step % self.recipe.every == 0 or record.step == record.total:
                record = replace(record, metrics={**record.metrics, **self.measure()})
            yield record

    def improves(self, record: StepRecord) -> bool:
        """Whether this step is the best so far; it is then remembered."""
        row = {"step": record.step, **record.metrics}
        before, self.best = self.best, best_of(self.best, row, self.recipe.metric)
        return self.best != before


@dataclass(frozen=True, slots=True)
class DevSet:
    """A suite, and those of its items that training data could contain: `DevSet(Suite(name="dev",
    ...), (Task("3x = 6", ...), ...), told_by=((), ...))`; `told_by` are the columns that tell each
    item apart from others with its prompt."""

    suite: Suite
    items: tuple[Task | Preference, ...]
    told_by: tuple[Sequence[str], ...]


def load_dev(recipe: Recipe) -> DevSet | None:
    """The suite of a recipe's `dev`, read and fit for this run.

    Raises `RecipeError` for a sealed suite, a score that it does not produce, or a task that the
    method's model cannot do; another `UsageError` for data and rewards that cannot be used. Loads
    no model.
    """
    dev = recipe.dev
    if dev is None:
        return None
    suite = load(Suite, dev.suite)
    if suite.sealed:
        raise RecipeError(
            "the suite is sealed: a checkpoint chosen by it would make its verdict worthless",
            where=dev.suite,
            fix="point dev.suite at a suite of other items, and keep this one for the gate",
        )
    if suite.engine.kind != "local":
        raise RecipeError(
            "the suite names servers, and during training the policy itself is measured",
            where=dev.suite,
            fix="drop `engine` from the suite, and give strop eval --engine URL",
        )
    _expect_scores(dev, suite)
    if method_of(recipe).scalar_head:
        for asked in suite.tasks:
            _expect_pairs(asked, dev.suite)
    jobs = jobs_of(suite, EvalSetup(LocalEngine(recipe.model.path), None, suite.seed))
    told_by = tuple(job.told_by for job in jobs for _ in job.items)
    return DevSet(suite, tuple(item for job in jobs for item in job.items), told_by)


def refuse_trained_on(dev: DevSet, training: Iterable[Record]) -> None:
    """Raise `DataError` where dev items are in the training data: memorising them would raise the
    scores, and the best checkpoint would be the one that memorised most."""
    found = overlap(dev.items, training, dev.told_by).matches
    if found:
        first = found[0]
        raise DataError(
            f"{len(found)} of {len(dev.items)} dev items are in the training data; this one is at "
            f"{', '.join(map(str, first.places[:SHOWN]))}",
            where=str(dev.items[first.item].origin),
            fix="measure on other items, take these out of `data`, or pass --force",
        )


def score_names(suite: Suite) -> list[str]:
    """The scores a suite produces: `["greedy/accuracy", "pairs", "mine", "mine/..."]`; the parts of
    a task written in Python, or of lm-eval, are known only once it ran."""
    return [
        f"{asked.name}/{part}" if part else asked.name
        for asked in suite.tasks
        for part in PARTS[type(asked)](asked)
    ]


def _labels(asked: GenerateTask | EpisodeTask) -> list[str]:
    return [component.label for component in asked.scores]


def _episode_parts(asked: EpisodeTask) -> list[str]:
    every = [f"pass^{asked.samples}"] if asked.samples > 1 else []
    return [*_labels(asked), *every]


def _safe_parts(asked: SafetyTask) -> list[str]:
    both = {"harmful": REFUSED, "harmless": ANSWERED}
    return [name for kind, name in both.items() if asked.only in (None, kind)]


PARTS: Mapping[type[EvalTask], Callable[[Any], list[str]]] = {
    GenerateTask: _labels,
    EpisodeTask: _episode_parts,
    WinRateTask: lambda asked: [WIN_RATE],
    PreferenceTask: lambda asked: [""],
    ChoiceTask: lambda asked: list(LENGTHS),
    PerplexityTask: lambda asked: ["logprob"],
    SafetyTask: _safe_parts,
    PythonTask: lambda asked: ["", ANY],
    LmEvalTask: lambda asked: ["", ANY],
}
"""By kind of task: the parts after the task's name in the names of its scores."""


def _expect_scores(dev: DevRecipe, suite: Suite) -> None:
    known = score_names(suite)
    for name in (dev.metric, *dev.general):
        task, _, _ = name.partition("/")
        if name not in known and f"{task}/{ANY}" not in known:
            raise _unknown(name, dev, known)


def _unknown(name: str, dev: DevRecipe, known: Sequence[str]) -> RecipeError:
    key = "metric" if name == dev.metric else "general"
    return RecipeError(
        f"dev.{key} names the score {name!r}, which the suite does not produce",
        where=dev.suite,
        fix=f"its scores are {', '.join(known)}",
    )


def _expect_pairs(asked: AnyTask, suite: str) -> None:
    """A reward model can only be asked which of two answers is the better one."""
    if not isinstance(asked, PreferenceTask):
        raise RecipeError(
            f"task {asked.name} is of kind {asked.kind}, but a reward model writes no text",
            where=suite,
            fix="use tasks of kind preference: how often chosen scores above rejected",
        )
    if asked.per_token:
        raise RecipeError(
            f"task {asked.name} says per_token, but a reward model gives one number per answer",
            where=suite,
            fix="drop per_token",
        )


def _preferred(suite: Suite, network: ScalarNetwork, world: World) -> dict[str, float]:
    """Share of each task's pairs whose chosen answer scores higher; a tie is half."""
    scores = {}
    for asked in suite.tasks:
        assert isinstance(asked, PreferenceTask)
        pairs = read(asked.data, preference, held_out=True)
        share = share_of(len(pairs), world.data_rank, world.data_size)
        own = pairs[share.start : share.stop]
        trees = [preference_tree(network.tokenizer, pair) for pair in own]
        won = 0.0
        for start in range(0, len(trees), FORWARD):
            with network.arithmetic():
                scored_B = network.score.finals(trees[start : start + FORWARD])
            gap_P = scored_B[0::2] - scored_B[1::2]
            won += float((gap_P > 0).sum() + 0.5 * (gap_P == 0).sum())
        scores[asked.name] = world.total({"won": won})["won"] / len(pairs)
    return scores


@contextmanager
def _same_draws(network: Network) -> Iterator[None]:
    """Restores the run's random streams afterwards: a user's reward may draw from them."""
    devices: Sequence[torch.device] = [network.device] if network.device.type == "cuda" else []
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
