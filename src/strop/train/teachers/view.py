"""What a teacher reads: the student's prompt, or one that tells it more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from strop.data.messages import text_of
from strop.errors import DataError
from strop.recipe.train.teacher import View
from strop.text.render import prompts_ids
from strop.types import Demonstration, Origin, Record, Task, Text, Tree

AT_ONCE = 512
"""Prompts that are rendered together."""


@dataclass(frozen=True, slots=True)
class Informed:
    """A teacher's own prompts: `Informed(View(prompt="hinted"), tokenizer)`.

    What it writes after them are the student's tokens, so that the two have the same rows.
    """

    view: View
    tokenizer: Any = field(repr=False)

    def tree(self, tree: Tree, asked: Record) -> Tree:
        """The student's tree with the teacher's prompt for a trunk."""
        return replace(tree, trunk=prompts_ids(self.tokenizer, [self.task(asked)])[0])

    def task(self, asked: Record) -> Task:
        """The record with the teacher's prompt; raises `DataError` where the column is missing."""
        prompt, columns, origin = _asked(asked)
        if self.view.system is not None:
            return Task(_led(self.view.system, prompt), columns, origin)
        name = self.view.prompt
        assert name is not None
        if columns.get(name) is None:
            raise DataError(
                f"teacher.prompt names the column {name!r}, which this record does not have; found "
                f"{{{', '.join(columns) or 'no further column'}}}",
                where=str(origin),
                fix="add the column to every record, or name another one",
            )
        told = text_of(columns[name], name, origin)
        if isinstance(told, str) and not isinstance(prompt, str):
            raise DataError(
                f"the column {name!r} is plain text, and the student's prompt a conversation: the "
                "teacher would read it without the template",
                where=str(origin),
                fix=f'write messages: "{name}": [{{"role": "user", "content": ...}}]',
            )
        return Task(told, columns, origin)

    def expect(self, records: Iterable[Record], answers: Iterable[int], most: int | None) -> None:
        """Look at every prompt before the run; `answers` are the tokens that may follow each.

        Raises `DataError` for a record without one, one whose teacher reads what the student
        reads, and one that is longer, with its answer, than the teacher's `most` positions.
        """
        lengths = iter(answers)
        for batch in _batches(records):
            own = prompts_ids(self.tokenizer, [Task(*_asked(record)) for record in batch])
            told = prompts_ids(self.tokenizer, [self.task(record) for record in batch])
            for record, mine, theirs in zip(batch, own, told, strict=True):
                answer = next(lengths)
                if mine == theirs:
                    raise DataError(
                        "the teacher reads the same prompt as the student",
                        where=str(_asked(record)[2]),
                        fix="tell it more in the column, or use a template that writes system "
                        "messages",
                    )
                if most is not None and len(theirs) + answer > most:
                    raise DataError(
                        f"the teacher's prompt of {len(theirs)} tokens and an answer of up to "
                        f"{answer} are longer than its {most} positions",
                        where=str(_asked(record)[2]),
                        fix="shorten the column, or drop the record",
                    )


def _asked(record: Record) -> tuple[Text, Mapping[str, Any], Origin]:
    assert isinstance(record, Demonstration | Task)
    return record.prompt, record.columns, record.origin


def _led(system: str, prompt: Text) -> Text:
    """A prompt after a system message that the student does not see."""
    if isinstance(prompt, str):
        return f"{system}\n\n{prompt}"
    first, *rest = prompt
    if first["role"] == "system" and isinstance(first["content"], str):
        return [{**first, "content": f"{system}\n\n{first['content']}"}, *rest]
    return [{"role": "system", "content": system}, *prompt]


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    for record in records:
        batch.append(record)
        if len(batch) == AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
