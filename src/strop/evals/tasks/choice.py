"""Multiple choice: which of the given answers the model finds likeliest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strop.data.forms import Row
from strop.data.items import cluster_of, item_of, slices_of
from strop.data.records import task
from strop.data.sources import read
from strop.errors import DataError
from strop.evals.continuations import continuing, pair_ids
from strop.evals.reading import Reader
from strop.recipe.suite import ChoiceTask
from strop.text.encode import Encoder, Tokenizer
from strop.text.parse import plain
from strop.text.render import trees
from strop.text.script import asked_of
from strop.types import EvalRecord, Origin, Task, Tree

LENGTHS: Mapping[str, Callable[[str], int]] = {
    "acc": lambda choice: 1,
    "acc_norm": len,
    "acc_bytes": lambda choice: len(choice.encode()),
}
"""Divisors of a choice's log-prob before the likeliest is picked, under lm-eval's names."""


@dataclass(frozen=True, slots=True)
class Choice:
    """`Choice(Task("2x = 6, so x =", {...}, origin), choices=("2", "3"), right=1)`."""

    task: Task
    choices: tuple[str, ...]
    right: int

    @property
    def where(self) -> str:
        return str(self.task.origin)


def rows_of(recipe: ChoiceTask) -> list[Choice]:
    """The items of a task. `DataError` names file and line of the first invalid row."""
    return read(recipe.data, parse, held_out=True)


def parse(row: Row, origin: Origin) -> Choice:
    """`{"prompt" (or "question"), "choices", "answer"}`; the answer is a number from 0, the text of
    a choice or its letter."""
    if row.get("prompt") is None and isinstance(row.get("question"), str):
        row = {"prompt": row["question"], **{k: v for k, v in row.items() if k != "prompt"}}
    missing = [name for name in ("prompt", "choices", "answer") if row.get(name) is None]
    if missing:
        raise DataError(
            f"the row has no `{missing[0]}`", where=str(origin),
            fix='write {"prompt": "2x = 6, so x =", "choices": ["2", "3"], "answer": 1}',
        )  # fmt: skip
    choices = _choices(row["choices"], origin)
    return Choice(task(row, origin), choices, _right(row["answer"], choices, origin))


def score_rows(reader: Reader, recipe: ChoiceTask, rows: Sequence[Choice]) -> list[EvalRecord]:
    """Under each of `LENGTHS` 1.0 if the right choice is likeliest, else 0.0; of equally likely
    choices the first counts, as in lm-eval. `None` if a log-prob is not finite."""
    encoder, longest = Encoder(reader.tokenizer), reader.longest
    asked = [choice_tree(encoder, recipe, row) for row in rows]
    for row, tree in zip(rows, asked, strict=True):
        _expect_room(row, tree, longest)
    read = iter(reader.sums(asked))
    return [
        record
        for row in rows
        for record in _records(recipe, row, [next(read) for _ in row.choices])
    ]


def choice_tree(encoder: Encoder, recipe: ChoiceTask, row: Choice) -> Tree:
    """The prompt with a branch for each choice, without an end-of-sequence token.

    Plain text is split as lm-eval splits it; messages go through the chat template.
    """
    if isinstance(row.task.prompt, str):
        text = row.task.prompt
        pairs = [pair_ids(encoder, text, recipe.delimiter + choice) for choice in row.choices]
        tree = continuing(pairs[0][0], [ids for _, ids in pairs])
    else:
        tree = _chat_tree(encoder.tokenizer, recipe, row)
    for choice, branch in zip(row.choices, tree.branches, strict=True):
        if not branch.ids:
            raise DataError(
                f"the choice {choice!r} adds no token to the prompt", where=row.where,
                fix="set a delimiter that keeps prompt and choice apart",
            )  # fmt: skip
    return tree


def _chat_tree(tokenizer: Tokenizer, recipe: ChoiceTask, row: Choice) -> Tree:
    if recipe.delimiter != ChoiceTask.model_fields["delimiter"].default:
        raise DataError(
            "the prompt is a list of messages, so the task's `delimiter` would not be read",
            where=row.where,
            fix="drop delimiter: the chat template says what stands before an answer",
        )
    (tree,) = trees(tokenizer, [asked_of(row.task)._replace(answers=row.choices)])
    return continuing(tree.trunk, [branch.ids[:-1] for branch in tree.branches])


def _records(recipe: ChoiceTask, row: Choice, logprobs: Sequence[float]) -> list[EvalRecord]:
    known = all(map(math.isfinite, logprobs))
    details = {
        f"logprob/{number}": value if math.isfinite(value) else None
        for number, value in enumerate(logprobs)
    }
    records = []
    for name, length in LENGTHS.items():
        values = [value / length(c) for value, c in zip(logprobs, row.choices, strict=True)]
        best = values.index(max(values)) if known else None
        others = values[: row.right] + values[row.right + 1 :]
        records.append(
            EvalRecord(
                task=f"{recipe.name}/{name}",
                item=item_of(row.task),
                score=None if best is None else float(best == row.right),
                cluster=cluster_of(row.task),
                prompt=plain(row.task.prompt),
                output="" if best is None else row.choices[best],
                details={"margin": values[row.right] - max(others) if known else None, **details},
                slices=slices_of(row.task, recipe.slices),
                scale=(0.0, 1.0),
            )
        )
    return records


def _choices(value: Any, origin: Origin) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(choice, str) for choice in value):
        raise DataError("`choices` is not a list of texts", where=str(origin),
                        fix='write ["2", "3"]')  # fmt: skip
    if len(value) < 2:
        raise DataError(f"`choices` holds {len(value)} text{'s' * (len(value) != 1)}, so there is"
                        " nothing to choose", where=str(origin),
                        fix="give two choices or more, or drop the line")  # fmt: skip
    blank = [number for number, choice in enumerate(value) if not choice.strip()]
    if blank:
        raise DataError(f"`choices[{blank[0]}]` is empty", where=str(origin), fix="drop the line")
    if len(set(value)) < len(value):
        raise DataError("two choices are the same text", where=str(origin), fix="drop the line")
    return tuple(value)


def _right(answer: Any, choices: Sequence[str], origin: Origin) -> int:
    """The index of the right choice. An answer that equals a choice's text means that choice, even
    if it also looks like a letter or number."""
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return answer
    if isinstance(answer, str) and answer in choices:
        return choices.index(answer)
    letters = [chr(ord("A") + number) for number in range(len(choices))]
    if isinstance(answer, str) and answer in letters:
        return letters.index(answer)
    raise DataError(
        f"the answer {answer!r} is not among the {len(choices)} choices", where=str(origin),
        fix=f"give a number from 0 to {len(choices) - 1}, a letter from A to {letters[-1]}, "
        "or the text of a choice",
    )  # fmt: skip


def _expect_room(row: Choice, tree: Tree, longest: int) -> None:
    tokens = len(tree.trunk) + max(len(branch.ids) for branch in tree.branches)
    if tokens > longest:
        raise DataError(
            f"prompt and longest choice are {tokens} tokens, the model reads {longest - 1}",
            where=row.where,
            fix="shorten the prompt or drop the line",
        )
