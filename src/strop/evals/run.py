"""Runs a suite on a model and writes records, mean scores and drift figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from strop.data.items import expect_own_items
from strop.engines.build import FolderEngine
from strop.engines.engine import Engine, sampling_of
from strop.engines.local.engine import LocalEngine
from strop.engines.openai import OpenAIEngine
from strop.engines.served.fixed import FixedEngine
from strop.errors import OutputError
from strop.evals.ask import as_engine
from strop.evals.drift import PREFIX, corpus_figures, per_token
from strop.evals.inputs import inputs_of
from strop.evals.jobs import EvalSetup, Job, jobs_of
from strop.evals.journal import EvalJournal
from strop.evals.needs import expect_measurable
from strop.evals.records import RECORDS, mean_scores, write_records
from strop.evals.summary import SUMMARY, counts, prompts_of, summary_of
from strop.evals.tasks.perplexity import corpus_of
from strop.files import writing_folder
from strop.model.load import expect_weights
from strop.recipe.suite import AnswerTask, PerplexityTask, ScoredTask, Suite
from strop.text.chat.clock import written_on
from strop.types import EvalRecord, Task

OnPart = Callable[[str, int, int], None]
"""Called with a task's name, the number of its items measured so far, and their total."""


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """`SuiteResult({"greedy/accuracy": 0.44}, {"greedy": {"length": 21.4}}, kl=0.02, records=())`.

    `figures` are those of all answers of a task together (strop.evals.drift, perplexities). `kl` is
    KL(model || reference) in nats per sampled token of the tasks that sample (temperature above 0),
    exact over the vocabulary; `None` without a reference.
    """

    scores: dict[str, float]
    figures: dict[str, dict[str, float]]
    kl: float | None
    records: tuple[EvalRecord, ...]


def run_suite(
    suite: Suite,
    engine: Engine | str,
    output: str | Path,
    *,
    reference: str | None = None,
    on_part: OnPart = lambda name, done, total: None,
) -> SuiteResult:
    """Run every task, write `records.jsonl` and `summary.json` under `output`, whole or not at all.

    `engine` may be a model folder or hub name, which answers by the suite's `engine`. Results of an
    interrupted start are kept beside `output` and reused.
    """
    asked_of = as_engine(engine, suite.engine).with_template(suite.template)
    with written_on(suite.date):
        return _run_suite(suite, asked_of, Path(output), reference, on_part)


def _run_suite(
    suite: Suite, asked_of: Engine, folder: Path, reference: str | None, on_part: OnPart
) -> SuiteResult:
    _expect_free(folder)
    against = None if reference is None else LocalEngine(reference, template=suite.template)
    expect_measurable(suite, asked_of, reference)
    jobs = _jobs(suite, EvalSetup(asked_of, against, suite.seed))
    for model in (asked_of, against):
        if isinstance(model, FolderEngine):
            expect_weights(model.path)
    if isinstance(asked_of, FixedEngine):
        asked_of.prove()
    summary = summary_of(suite, asked_of, reference, jobs)
    journal = EvalJournal(folder, inputs_of(suite, asked_of, reference))
    journal.open()
    for job in jobs:
        _run(job, journal, on_part)
    result = _result(suite, [r for job in jobs for r in _records(job, journal)], reference)
    _write(
        folder,
        result,
        {
            **summary,
            "prompts": prompts_of(asked_of, jobs),
            "inputs": journal.inputs,
            "scores": result.scores,
            "figures": result.figures,
            "kl": result.kl,
            "items": counts(result.records, list(result.scores)),
        },
    )
    journal.close()
    return result


def check_suite(suite: Suite, engine: Engine) -> dict[str, int]:
    """Number of items of every task. Raises what would keep the suite from running. Servers are
    looked at: whether they answer, with the model's tokenizer, and read the longest prompt and its
    answer; no model is loaded or asked."""
    engine.identity()
    expect_measurable(suite, engine, None)
    if isinstance(engine, FixedEngine | OpenAIEngine):
        engine.expect()
    jobs = _jobs(suite, EvalSetup(engine, None, suite.seed))
    if isinstance(engine, FixedEngine):
        for recipe, job in zip(suite.tasks, jobs, strict=True):
            asked = [item for item in job.items if isinstance(item, Task)]
            if asked and isinstance(recipe, AnswerTask):
                engine.prompted(asked, sampling_of(recipe.sampling))
    return {job.name: len(job.rows) for job in jobs}


def _jobs(suite: Suite, asked: EvalSetup) -> list[Job]:
    jobs = jobs_of(suite, asked)
    for job in jobs:
        expect_own_items(job.items)
        job.begin()
    return jobs


def _expect_free(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / SUMMARY).exists():
        raise OutputError(
            "the output folder is not empty and holds no eval", where=str(folder),
            fix="choose another output",
        )  # fmt: skip


def _run(job: Job, journal: EvalJournal, on_part: OnPart) -> None:
    measured = 0
    for number, part in enumerate(job.parts()):
        if (job.name, number) not in journal.done:
            journal.add(job.name, number, job.judge(part))
        measured += len(part)
        on_part(job.name, measured, len(job.rows))


def _records(job: Job, journal: EvalJournal) -> list[EvalRecord]:
    """All records of a job, score by score, in the order of the data."""
    parts = [journal.done[job.name, number] for number, _ in enumerate(job.parts())]
    by_name: dict[str, list[EvalRecord]] = {}
    for record in (record for part in parts for record in part):
        by_name.setdefault(record.task, []).append(record)
    return [record for records in by_name.values() for record in records]


def _scores(records: list[EvalRecord]) -> dict[str, float]:
    return mean_scores([record for record in records if not record.task.startswith(PREFIX)])


def _result(suite: Suite, records: list[EvalRecord], reference: str | None) -> SuiteResult:
    kl = _divergence(suite, records) if reference else None
    figures = corpus_figures(records)
    for task in suite.tasks:
        if isinstance(task, PerplexityTask):
            figures[task.name] = asdict(corpus_of(records, task.name))
    return SuiteResult(_scores(records), figures, kl, tuple(records))


def _divergence(suite: Suite, records: list[EvalRecord]) -> float | None:
    """KL per token over all answers that were sampled."""
    sampled = {
        task.name
        for task in suite.tasks
        if isinstance(task, ScoredTask) and task.sampling.temperature > 0
    }
    found = {
        figure: [r for r in records if r.task in {f"{PREFIX}{name}/{figure}" for name in sampled}]
        for figure in ("kl", "length")
    }
    return per_token(found["kl"], found["length"]) if found["kl"] else None


def _write(folder: Path, result: SuiteResult, summary: Mapping[str, Any]) -> None:
    with writing_folder(folder) as temporary:
        write_records(temporary / RECORDS, result.records)
        (temporary / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
