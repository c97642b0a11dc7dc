"""Reads what there is, walks the table, and makes the recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from strop.advise.advice import Advice, advise
from strop.advise.facts import Facts
from strop.advise.known.data import KnownData, checkable_rows, left_out, read_data
from strop.advise.known.evals import (
    Target,
    expect_same_model,
    read_decoding,
    read_eval,
    read_prompted,
)
from strop.advise.known.model import domain_ratio, read_model
from strop.advise.known.teacher import read_taught, read_teacher
from strop.advise.recipes import CHECKABLE, MODEL, Recipe, ready_recipe
from strop.advise.table.rules import Table, read_table
from strop.data.records import any_record
from strop.data.sources import at, read
from strop.errors import UsageError
from strop.files import write_rows, write_whole
from strop.rewards.exact import golds_of
from strop.text.parse import plain
from strop.types import Record, RecordKind, Task

_SIGNAL_KIND: Mapping[str, RecordKind] = {
    "verifier": "task", "part_verifier": "task", "prompts": "task", "pairs": "preference",
    "thumbs": "feedback", "demonstrations": "demonstration", "documents": "document",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about: `Question(data=(Path("pairs.jsonl"),), eval=Path("evals/sft"))`."""

    data: Sequence[Path] = ()
    model: Path | None = None
    eval: Path | None = None
    prompted: Path | None = None
    decode: Path | None = None
    teacher: Path | None = None
    teacher_eval: Path | None = None
    target: Target | None = None
    goal: str = ""
    users: int | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The advice, the recipe of a verdict that trains, and what is to be said of unusable rows."""

    advice: Advice
    recipe: Recipe | None
    tasks: Sequence[str] = ()
    left_out: Sequence[str] = ()

    def save(self, path: Path) -> None:
        """Write the recipe, and beside it the tasks that a reward can check, where the files hold
        others too. Raises `UsageError` where there is no recipe."""
        if self.recipe is None:
            raise UsageError(f"the verdict {self.advice.verdict} has no recipe to write",
                             fix="drop --recipe, and do what the advice says first")  # fmt: skip
        recipe, checkable = dict(self.recipe), path.resolve().parent / CHECKABLE
        if [Path(one).name for one in recipe["data"]] == [CHECKABLE]:
            write_rows(checkable, checkable_rows(self.tasks))
            recipe["data"] = [str(checkable)]
        text = yaml.safe_dump(recipe, sort_keys=False, width=100)
        if recipe["model"]["path"] == MODEL:
            text = f"# put the folder of your model in the place of {MODEL}\n{text}"
        write_whole(path, text)

    def plain(self) -> dict[str, Any]:
        return {**self.advice.plain(), "recipe": self.recipe, "left_out": list(self.left_out)}


def answer(
    question: Question, watch: Callable[[Record], None] | None = None, table: Table | None = None
) -> Answered:
    """Everything that is asked, from facts to recipe.

    Raises `StropError` for files and folders that cannot be read.
    """
    table = read_table() if table is None else table
    data = read_data(question.data, watch)
    facts = facts_of(question, data, table)
    advice = advise(facts, table)
    trained = advice.verdict
    if trained in ("no_eval", "gap_within_noise") and advice.runners_up:
        trained = advice.runners_up[0].verdict
    recipe = ready_recipe(trained, facts, data, question.model, teacher=question.teacher)
    rows = tuple(left_out(data.reports))
    return Answered(advice, recipe, data.files.get("task", ()), rows)


def facts_of(question: Question, data: KnownData, table: Table) -> Facts:
    """Everything that is known."""
    known = dict(data.facts)
    prompts = known.pop("prompts_by_kind", {})
    if question.eval is not None:
        known |= read_eval(question.eval, question.target, _golds(data)).facts
    if question.prompted is not None:
        known |= read_prompted(question.prompted, question.target)
    if question.decode is not None:
        known |= read_decoding(question.decode, question.target)
    if question.model is not None:
        known |= read_model(question.model)
        for folder in filter(None, (question.eval, question.prompted)):
            expect_same_model(folder, question.model)
        if documents := data.files.get("document"):
            known["domain_ratio"] = domain_ratio(question.model, documents)
    if question.teacher is not None:
        known |= read_teacher(question.teacher, question.model)
    if question.teacher_eval is not None:
        if question.teacher is None:
            raise UsageError("--teacher-eval says nothing without the model that it measured",
                             fix="add --teacher FOLDER")  # fmt: skip
        known |= read_taught(question.teacher_eval, question.eval, question.target)
        expect_same_model(question.teacher_eval, question.teacher)
    known |= goals_of(question.goal, table.goals)
    facts = Facts(**known, users=question.users)
    counted = prompts.get(_SIGNAL_KIND.get(facts.signal or "", "task"))
    return Facts(**known, users=question.users, prompts=counted)


def goals_of(goal: str, words: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What a goal in words asks for: the kind whose words it holds most of; `{}` for none.

    `goals_of("answer in our brand voice", ...) == {"goal": "style"}`.
    """
    said = f" {' '.join(goal.casefold().replace(',', ' ').replace('.', ' ').split())} "
    counts = {kind: sum(f" {word} " in said for word in held) for kind, held in words.items()}
    found: dict[str, Any] = {"prototype": True} if counts.pop("prototype") else {}
    best = max(counts, key=lambda kind: counts[kind])
    return found | ({"goal": best} if counts[best] else {})


def _golds(data: KnownData) -> dict[str, str]:
    """The right answers of the tasks, by prompt."""
    sources = [at(path) for path in data.files.get("task", ())]
    tasks = [one for one in read(sources, any_record) if isinstance(one, Task)] if sources else []
    asked = [(plain(one.prompt), one.columns.get("answer")) for one in tasks]
    asked = [(prompt, gold) for prompt, gold in asked if isinstance(gold, str | int | float)]
    golds = golds_of([gold for _, gold in asked], "answer")
    return {
        prompt: gold for (prompt, _), gold in zip(asked, golds, strict=True) if gold is not None
    }
