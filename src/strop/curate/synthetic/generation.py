"""What all kinds of generated data share: prompts in, an engine asked, records with their
provenance out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from strop.curate.manifest import Output, expect_free, records_of, writing_records
from strop.curate.synthetic.answers import Answers, Asked, Cost, Drawn, prompt_hash
from strop.curate.synthetic.journal import AnswerJournal
from strop.data.bad_rows import BadRow
from strop.data.records import COLUMNS
from strop.data.sources import at, rows_of
from strop.engines.engine import Engine, sampling_of
from strop.files import locked, remove
from strop.recipe.synthetic import GenerateRecipe
from strop.recipe.train.data import DataSource
from strop.rewards.compose import as_said
from strop.text.script import as_messages, before_answer
from strop.text.templates import PromptTemplate
from strop.types import Document, Origin, Record, Task, Text

TELLING = frozenset(name for forms in COLUMNS.values() for form in forms for name in form)
"""Columns that say what kind of record a row is."""

Inputs = Sequence[DataSource | str | Path]
"""Data files, folders or patterns, or sources with options of their own."""

OnProgress = Callable[[int, int], None]
"""Called with the answers (or instructions) that are there, and how many there will be."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where generated records go: `Target(Path("pairs.jsonl"))`.

    What was answered is kept in the hidden folder `.<output>.partial` beside the output until the
    output is whole, or for good in `cache`: a run that was broken off goes on from there.
    """

    output: Path
    cache: Path | None = None
    overwrite: bool = False
    max_bad: float | None = None
    on_progress: OnProgress = lambda done, total: None

    @property
    def kept(self) -> Path:
        """The folder of what was answered so far."""
        return self.cache or self.output.parent / f".{self.output.name}.partial"


@dataclass(frozen=True, slots=True)
class Generated:
    """What came of it: `Generated(Path("pairs.jsonl"), prompts=100, records=93,
    dropped={"no_contrast": 7}, figures={"scored": 800}, cost=Cost(answers=800), money=0.12)`."""

    output: Path
    prompts: int
    records: int
    dropped: Mapping[str, int]
    figures: Mapping[str, float]
    cost: Cost
    money: float | None

    def plain(self) -> dict[str, Any]:
        """As one JSON object."""
        return {**asdict(self), "output": str(self.output)}

    @property
    def sentence(self) -> str:
        """On one line, for a person."""
        left = ", ".join(f"{count} {kind}" for kind, count in self.dropped.items())
        return f"{self.records} records from {self.prompts} prompts" + (
            f"; left out {left}" if left else ""
        )


@dataclass(slots=True)
class Generation:
    """One run of one kind, under way."""

    recipe: GenerateRecipe
    target: Target
    answers: Answers
    output: Output
    made_by: Mapping[str, Any]
    """What stands in the `meta` of every record: kind, engine, templates, reward, seed."""
    prompts: int = 0
    figures: dict[str, float] = field(default_factory=dict)

    def tasks(self, inputs: Sequence[DataSource]) -> Iterator[list[Task]]:
        """The prompts of these sources, `at_once` at a time; a repeated one is left out."""
        left = self._tasks(inputs)
        while batch := list(islice(left, self.recipe.at_once)):
            yield batch

    def _tasks(self, inputs: Sequence[DataSource]) -> Iterator[Task]:
        seen: dict[str, Origin] = {}
        for record in records_of(inputs, self.output, max_bad=self.target.max_bad):
            if isinstance(record, Document):
                self.drop("no_prompt", "a document asks nothing", record.origin, record)
                continue
            task = Task(self.form(record.prompt), record.columns, record.origin)
            asked = prompt_hash(task)
            if asked in seen:
                first = seen[asked]
                self.drop("repeated_prompt", f"the prompt of {first}", record.origin, record)
                continue
            seen[asked] = record.origin
            self.prompts += 1
            yield task

    def form(self, prompt: Text) -> Text:
        """A prompt as it is asked and written."""
        return as_messages(prompt, role="user") if self.recipe.chat else prompt

    def ask(
        self,
        tasks: Sequence[Task],
        count: int = 1,
        *,
        round: int = 0,
        template: PromptTemplate | None = None,
    ) -> list[Asked]:
        """`count` answers to every prompt, in the words of `template` where there is one; the
        prompts come back as they were."""
        worded = tasks
        if template is not None:
            worded = [replace(task, prompt=template.around(task.prompt)) for task in tasks]
        asked = self.answers.ask(worded, count, round=round)
        return [replace(one, task=task) for one, task in zip(asked, tasks, strict=True)]

    def usable(self, asked: Asked, *, keep_cut: bool = False) -> list[Drawn]:
        """The answers that can be used; the others are dropped and counted."""
        keep_cut = keep_cut or self.recipe.keep_cut
        if asked.refused:
            self.drop("unaskable", asked.refused, asked.task.origin)
        found = []
        for drawn in asked.drawn:
            if fault := drawn.fault(keep_cut=keep_cut):
                self.drop(*fault, asked.task.origin)
            else:
                found.append(drawn)
        return found

    def meta(self, task: Task, drawn: Drawn, **further: Any) -> dict[str, Any]:
        """How a record was made; what its prompt's `meta` said stands under `prompt`."""
        prompt: dict[str, Any] = {"file": task.origin.path, "line": task.origin.line}
        if "meta" in task.columns:
            prompt["meta"] = task.columns["meta"]
        return {**self.made_by, "draw": asdict(drawn.key), "prompt": prompt, **further}

    def count(self, name: str, number: float = 1) -> None:
        """Add to one of the figures of the run."""
        self.figures[name] = self.figures.get(name, 0) + number

    def drop(self, kind: str, reason: str, origin: Origin, record: Record | None = None) -> None:
        """Leave something out that is well-formed and of no use."""
        self.output.drop(BadRow(kind, reason, origin, excess=True), record)


def answer_text(task: Task, drawn: Drawn) -> Text:
    """An answer as a record's completion, in the form of its prompt.

    A thought that the chat template opened is part of it; what stands in a plain prompt is not.
    """
    answer = drawn.answer
    if isinstance(task.prompt, str):
        return answer.text
    return as_said(task.prompt, answer.said)


def prompt_text(task: Task) -> Text:
    """A task's prompt as a record's: an assistant message at its end is part of the answer."""
    return before_answer(task.prompt)


def columns_with(task: Task, meta: Mapping[str, Any], **further: Any) -> dict[str, Any]:
    """The columns of a prompt, with `meta` in the place of its own.

    Columns by whose names a record would be taken for another one (`label`, `text`) stand under
    `meta`, as `prompt.columns`.
    """
    kept = {name: value for name, value in task.columns.items() if name not in TELLING}
    telling = {name: value for name, value in task.columns.items() if name in TELLING}
    if telling:
        meta = {**meta, "prompt": {**meta["prompt"], "columns": telling}}
    return {**kept, **further, "meta": dict(meta)}


def sources(inputs: Inputs) -> list[DataSource]:
    """What a caller gives as inputs, as sources."""
    return [one if isinstance(one, DataSource) else at(one) for one in inputs]


def rows_in(inputs: Sequence[DataSource]) -> int:
    """How many rows the sources have, bad ones included, within their limits."""
    total = 0
    for source in inputs:
        rows = sum(1 for _ in rows_of(source))
        total += rows if source.limit is None else min(rows, source.limit)
    return total


@contextmanager
def generating(
    kind: str,
    inputs: Sequence[DataSource],
    engine: Engine,
    recipe: GenerateRecipe,
    target: Target,
    *,
    templates: Sequence[PromptTemplate] = (),
    further: Mapping[str, Any] | None = None,
    total: int | None = None,
) -> Iterator[Generation]:
    """A run of this kind; its records, dropped rows and manifest stand at the target when the block
    ends. Where the block raises, nothing does, and what was answered stays for the next start.

    `further` is said of every record beside kind, engine, templates and seed. Progress is told by
    answers where `total` of them are expected.
    """
    expect_free(target.output, overwrite=target.overwrite)
    identity = dict(engine.identity())
    done = 0

    def on_answer(count: int) -> None:
        nonlocal done
        done += count
        if total is not None:
            target.on_progress(done, max(total, done))

    made_by = {
        "source": "synthetic",
        "kind": kind,
        "engine": identity,
        "templates": {template.name: template.sha256 for template in templates},
        "seed": recipe.seed,
        **(further or {}),
    }
    settings: dict[str, Any] = {"engine": identity, "templates": made_by["templates"],
                                **(further or {}), **_said(recipe)}  # fmt: skip
    whole = False
    try:
        with locked(target.kept):
            journal = AnswerJournal(target.kept, identity)
            answers = Answers(engine, sampling_of(recipe.sampling), recipe.seed, journal, on_answer)
            with writing_records(
                target.output, f"generate {kind}", inputs, settings, overwrite=target.overwrite
            ) as output:
                generation = Generation(recipe, target, answers, output, made_by)
                yield generation
                settings["cost"] = answers.cost.plain(recipe.prices)
                settings["figures"] = dict(generation.figures)
        whole = True
    finally:
        if target.cache is None and (whole or not _holds(target.kept)):
            remove(target.kept)


def _holds(folder: Path) -> bool:
    """Whether anything was answered that a folder keeps."""
    return any(file.is_file() and file.stat().st_size for file in folder.rglob("*"))


def _said(recipe: GenerateRecipe) -> dict[str, Any]:
    """A recipe as a manifest keeps it: how fast an endpoint is asked changes no record."""
    return recipe.model_dump(mode="json", exclude={"requests"})


def generated(generation: Generation) -> Generated:
    """What a finished run came to."""
    output, cost = generation.output, generation.answers.cost
    return Generated(
        output=generation.target.output,
        prompts=generation.prompts,
        records=output.rows.total(),
        dropped=dict(output.dropped),
        figures=dict(generation.figures),
        cost=cost,
        money=cost.money(generation.recipe.prices),
    )
