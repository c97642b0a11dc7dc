"""Answers of a model to prompts, written as rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from strop.curate.asking import Advance, Drawing, engine_of, quiet
from strop.curate.contents import prompt_of
from strop.curate.manifest import expect_free, records_of, writing_records
from strop.curate.underway import Underway
from strop.data.bad_rows import BadRow
from strop.data.forms import Row
from strop.data.records import any_record
from strop.engines.engine import Engine, sampling_of
from strop.recipe.curate import SampleSettings
from strop.recipe.train.data import DataSource
from strop.rewards.compose import as_said
from strop.types import Answer, Demonstration, Origin, Record, Task

OWN = ("prompt", "completion", "chosen", "rejected", "label", "text", "messages")
"""Columns that say what kind of record a row is: those of a prompt's row are not carried over."""


@dataclass(frozen=True, slots=True)
class SampleReport:
    """`SampleReport(prompts=50, rows=198, empty=2, truncated=3)`: of four answers to each of 50
    prompts two were empty and left out; three met the token limit, written or not."""

    prompts: int
    rows: int
    empty: int
    truncated: int

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def sentence(self) -> str:
        said = [f"{self.rows} answers to {self.prompts} prompts"]
        said += [f"{self.empty} empty ones left out"] if self.empty else []
        said += [f"{self.truncated} met the token limit"] if self.truncated else []
        return ", ".join(said)


def sample(
    inputs: Sequence[DataSource],
    output: Path | None,
    settings: SampleSettings,
    *,
    overwrite: bool = False,
    engine: Engine | None = None,
    advance: Advance = quiet,
) -> SampleReport:
    """Write `{"prompt", "completion", ...columns, "meta"}`, a row for each answer.

    Of the inputs' records the prompts are read. `meta` gets the model, the hash of its weights, the
    number of the answer and why it ended. Without an output nothing is asked: only the prompts are
    counted. An interrupted run goes on where it was.
    """
    if output is None:
        with writing_records(None, "sample", inputs, {}) as nowhere:
            return SampleReport(sum(1 for _ in records_of(inputs, nowhere, parse=asks)), 0, 0, 0)
    expect_free(output, overwrite=overwrite)
    asked = engine or engine_of(settings, output)
    underway = Underway(output)
    drawing = Drawing(asked, sampling_of(settings.sampling), settings.samples, settings.seed)
    counts: Counter[str] = Counter()
    who = dict(asked.identity())
    given = settings.plain() | {"engine": who}
    with writing_records(output, "sample", inputs, given, overwrite=overwrite) as written:
        tasks = (task_of(record) for record in records_of(inputs, written, parse=asks))
        for task, answers in drawing.answers(tasks, underway, advance):
            counts["prompts"] += 1
            for number, answer in enumerate(answers):
                fault = _fault(answer, settings)
                row = answered(task, answer, number, who)
                if fault is None:
                    written.keep(row)
                    counts["truncated"] += answer.finish == "length"
                else:
                    written.drop(BadRow(fault, f"answer {number}", task.origin, excess=True), row)
                    counts[fault] += 1
        rows = written.rows.total()
    underway.close()
    return SampleReport(counts["prompts"], rows, counts["empty"], counts["truncated"])


def asks(row: Row, origin: Origin) -> Record:
    """Any record with a prompt; one without is a bad row."""
    record = any_record(row, origin)
    prompt_of(record)
    return record


def task_of(record: Record) -> Task:
    """The prompt of a record, with the columns beside it."""
    columns = {name: value for name, value in record.columns.items() if name not in OWN}
    return Task(prompt_of(record), columns, record.origin)


def answered(task: Task, answer: Answer, number: int, engine: Mapping[str, Any]) -> Demonstration:
    """A prompt with one answer, and in `meta` who gave it."""
    meta = task.columns.get("meta")
    known = dict(meta) if isinstance(meta, Mapping) else {} if meta is None else {"was": meta}
    said = known | {"engine": dict(engine), "sample": number, "finish": answer.finish}
    columns = {**task.columns, "meta": said}
    return Demonstration(task.prompt, as_said(task.prompt, answer.said), columns, task.origin)


def _fault(answer: Answer, settings: SampleSettings) -> str | None:
    """Why an answer is not worth writing."""
    if not answer.said.strip():
        return "empty"
    return "truncated" if answer.finish == "length" and settings.truncated == "drop" else None
