"""The tasks of a suite as jobs: rows and a function that judges any slice of them, so that an eval
can stop after any part and resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from strop.data.items import slices_of
from strop.data.records import preference, task
from strop.data.sources import read
from strop.engines.engine import Engine
from strop.engines.local.engine import LocalEngine
from strop.errors import UsageError
from strop.evals.ask import ask
from strop.evals.drift import answer_figures
from strop.evals.golden.manifest import check_frozen
from strop.evals.lm_eval.run import run_lm_eval
from strop.evals.reading import Reader, reader_of
from strop.evals.tasks import choice, perplexity
from strop.evals.tasks.custom import own_records, task_function
from strop.evals.tasks.episodes import all_passed, expect_some_pass, played, told_by
from strop.evals.tasks.generation import prefer, score_rollouts
from strop.evals.tasks.safety import expect_safety, safety_records
from strop.evals.tasks.win_rate import beside, warn_of_attacks, win_rate_of
from strop.model.network import Policy
from strop.recipe.suite import (
    AnswerTask,
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
from strop.recipe.train.data import DataSource
from strop.rewards.compose import Reward
from strop.rollout.environments import way_of, with_tools
from strop.types import Answered, EvalRecord, Preference, Rollout, Task

ANSWERS = 256
"""Answers in one part of a job: at most these are lost when an eval is killed."""

FORWARD = 64
"""Texts in one forward."""


@dataclass(frozen=True, slots=True)
class Job:
    """`Job("greedy", rows=(...), part=256, judge=..., items=(...))`: `judge(rows[a:b])` returns the
    records of these rows, which do not depend on the other rows. `items` are compared with the
    training data; `told_by` are columns that tell those apart whose prompts are alike. Rows of a
    part for which `together` returns the same are judged in one call: answers to a prompt that
    stands there twice differ. `begin` tries what the first row needs."""

    name: str
    rows: Sequence[Any]
    part: int
    judge: Callable[[Sequence[Any]], list[EvalRecord]]
    items: Sequence[Task | Preference] = ()
    together: Callable[[Any], str | None] = lambda row: None
    told_by: Sequence[str] = ()
    begin: Callable[[], object] = lambda: None

    def parts(self) -> Iterator[Sequence[Any]]:
        for start in range(0, len(self.rows), self.part):
            yield self.rows[start : start + self.part]


@dataclass(frozen=True, slots=True)
class EvalSetup:
    """The measured engine, its reference if any, and the seed."""

    engine: Engine
    reference: LocalEngine | None
    seed: int

    def reference_policy(self) -> Policy | None:
        return None if self.reference is None else self.reference.policy()

    def reference_reader(self) -> Reader | None:
        return None if self.reference is None else reader_of(self.reference)

    def figures(self, recipe: AnswerTask, said: Sequence[Rollout | Answered]) -> list[EvalRecord]:
        """Drift figures of the answers; with likelihoods if the engine is local."""
        policy = self.engine.policy() if isinstance(self.engine, LocalEngine) else None
        reference = self.reference_policy() if policy else None
        return answer_figures(recipe, said, policy, reference)


def jobs_of(suite: Suite, asked: EvalSetup) -> list[Job]:
    """One job per task, in the order of the suite. Reads and checks the data, but asks no
    engine."""
    return [_job(recipe, asked) for recipe in suite.tasks]


def _job(recipe: EvalTask, asked: EvalSetup) -> Job:
    """A task's job; what is wrong with a key of it names the task."""
    try:
        return JOBS[type(recipe)](recipe, asked)
    except UsageError as error:
        if error.key is None:
            raise
        where = f"task {recipe.name}" + (f": {error.where}" if error.where else "")
        raise type(error)(error.problem, where=where, fix=error.fix) from None


def _generate(recipe: GenerateTask, asked: EvalSetup) -> Job:
    rows = read(_frozen(recipe.data), task, held_out=True)
    reward = Reward(recipe.scores)  # once for all parts: it may hold a model or a worker
    reward.expect_columns(rows)
    return _answered(recipe, asked, rows, lambda said: score_rollouts(recipe, reward, said))


def _episodes(recipe: EpisodeTask, asked: EvalSetup) -> Job:
    way = way_of(recipe.environment)
    expect_some_pass(recipe, way.bounds)
    read_rows = read(_frozen(recipe.data), task, held_out=True)
    rows = [with_tools(one, way.tools) for one in read_rows]
    for one in rows:
        way.expect(one)
    reward = Reward(recipe.scores)
    reward.expect_columns(rows)

    def judge(tasks: Sequence[Task]) -> list[EvalRecord]:
        said = played(recipe, asked.engine, tasks, asked.seed)
        scored = score_rollouts(recipe, reward, said)
        return [*scored, *all_passed(recipe, said, scored), *asked.figures(recipe, said)]

    return Job(
        recipe.name, rows, max(1, ANSWERS // recipe.samples), judge, _sliced(recipe, rows),
        together=lambda row: str(row.prompt), told_by=told_by(way.reads, rows),
        begin=(lambda: None) if way.begin is None else partial(way.begin, rows[0]),
    )  # fmt: skip


def _win_rate(recipe: WinRateTask, asked: EvalSetup) -> Job:
    rows = read(_frozen(recipe.data), task, held_out=True)
    if recipe.against is not None:
        rows = beside(rows, recipe.against)
    scored = win_rate_of(recipe)
    reward = Reward(scored.scores)
    reward.expect_columns(rows)

    def judged(said: Sequence[Rollout | Answered]) -> list[EvalRecord]:
        warn_of_attacks(recipe.name, said)
        return score_rollouts(scored, reward, said)

    return _answered(recipe, asked, rows, judged)


def _safety(recipe: SafetyTask, asked: EvalSetup) -> Job:
    rows = read(_frozen(recipe.data), task, held_out=True)
    expect_safety(recipe, rows)
    return _answered(recipe, asked, rows, lambda said: safety_records(recipe, said))


def _answered(
    recipe: AnswerTask,
    asked: EvalSetup,
    rows: Sequence[Task],
    score: Callable[[Sequence[Rollout | Answered]], list[EvalRecord]],
) -> Job:
    def judge(tasks: Sequence[Task]) -> list[EvalRecord]:
        said = ask(asked.engine, tasks, recipe.sampling, recipe.samples, asked.seed)
        return score(said) + asked.figures(recipe, said)

    return Job(
        recipe.name, rows, max(1, ANSWERS // recipe.samples), judge, _sliced(recipe, rows),
        together=lambda row: str(row.prompt),
    )  # fmt: skip


def _prefer(recipe: PreferenceTask, asked: EvalSetup) -> Job:
    def judge(pairs: Sequence[Preference]) -> list[EvalRecord]:
        return prefer(reader_of(asked.engine), recipe, pairs, asked.reference_reader())

    rows = read(_frozen(recipe.data), preference, held_out=True)
    return Job(recipe.name, rows, FORWARD, judge, _sliced(recipe, rows))


def _choose(recipe: ChoiceTask, asked: EvalSetup) -> Job:
    _frozen(recipe.data)
    return _likelihoods(recipe, asked, choice.rows_of(recipe), choice.score_rows)


def _perplexity(recipe: PerplexityTask, asked: EvalSetup) -> Job:
    _frozen(recipe.data)
    return _likelihoods(recipe, asked, perplexity.rows_of(recipe), perplexity.score_rows)


def _likelihoods(
    recipe: EvalTask,
    asked: EvalSetup,
    rows: Sequence[Any],
    score: Callable[[Reader, Any, Sequence[Any]], list[EvalRecord]],
) -> Job:
    """A job that scores rows by the model's likelihoods."""

    def judge(part: Sequence[Any]) -> list[EvalRecord]:
        return score(reader_of(asked.engine), recipe, part)

    return Job(recipe.name, rows, FORWARD, judge, _sliced(recipe, [row.task for row in rows]))


def _custom(recipe: PythonTask, asked: EvalSetup) -> Job:
    def judge(whole: Sequence[str]) -> list[EvalRecord]:
        return own_records(recipe, asked.engine, asked.seed)

    task_function(recipe)
    return Job(recipe.name, [recipe.function], 1, judge)


def _lm_eval(recipe: LmEvalTask, asked: EvalSetup) -> Job:
    def judge(whole: Sequence[str]) -> list[EvalRecord]:
        return run_lm_eval(asked.engine.policy(), recipe, seed=asked.seed)

    return Job(recipe.name, [recipe.name], 1, judge)


JOBS: Mapping[type[EvalTask], Callable[[Any, EvalSetup], Job]] = {
    GenerateTask: _generate,
    EpisodeTask: _episodes,
    WinRateTask: _win_rate,
    PreferenceTask: _prefer,
    ChoiceTask: _choose,
    PerplexityTask: _perplexity,
    SafetyTask: _safety,
    PythonTask: _custom,
    LmEvalTask: _lm_eval,
}
"""The builder of each kind of task."""


def _frozen(data: Sequence[DataSource]) -> Sequence[DataSource]:
    """The sources of a task; raises if a golden set among them was changed."""
    for source in data:
        if source.path is not None:
            check_frozen(source.path)
    return data


def _sliced(
    recipe: EvalTask, rows: Sequence[Task] | Sequence[Preference]
) -> Sequence[Task] | Sequence[Preference]:
    """The rows; raises if one lacks a column that the task slices by."""
    for row in rows:
        slices_of(row, recipe.slices)
    return rows
