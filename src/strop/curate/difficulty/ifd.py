"""Instruction-following difficulty: how little an instruction helps to predict its answer.

Li et al. 2023 (arXiv 2308.12032, equations 1 to 4): IFD = s(A | Q) / s(A), where s is the mean
cross-entropy of the answer's tokens, with the instruction before them and with nothing. Near 0 the
instruction gives the answer away; from 1 on it does not help at all, so that the two hardly belong
together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from strop.curate.asking import Advance, batches, quiet
from strop.curate.contents import answer_in, content_hash, prompt_of
from strop.curate.underway import Underway
from strop.engines.build import FolderEngine
from strop.errors import TextError
from strop.evals.continuations import prefix_id
from strop.evals.reading import Reader, reader_of
from strop.text.encode import Tokenizer
from strop.text.render import trees
from strop.text.script import PromptAndAnswers, as_messages, tools_of
from strop.types import Branch, Record, Text, Tree

RECORDS = 64
"""Records in one part."""


def difficulties(
    records: Iterable[Record], engine: FolderEngine, underway: Underway, advance: Advance = quiet
) -> Iterator[tuple[Record, float | None]]:
    """Every record with its IFD; `None` for one that the model cannot read whole, that its template
    cannot write, or whose answer it predicts with certainty from nothing.

    The answer is the completion, the chosen answer of a pair, the last assistant turn of a
    conversation; its tokens are those that training would learn, the one that ends it among them.
    Without the instruction they follow BOS (EOS where there is no BOS). Raises `DataError` for a
    record without prompt or answer.
    """
    for part in batches(records, RECORDS):
        asked = [_asked(record) for record in part]
        key = ["ifd", dict(engine.identity()), [content_hash(record) for record in part]]
        rows = underway.read(key)
        values = _measured(reader_of(engine), asked) if rows is None else [r["ifd"] for r in rows]
        if rows is None:
            underway.write(key, ({"ifd": value} for value in values))
        advance(len(part))
        yield from zip(part, values, strict=True)


def _asked(record: Record) -> PromptAndAnswers:
    """A prompt with the one answer that is measured."""
    prompt, answer = prompt_of(record), answer_in(record)
    tools = tools_of(record.columns.get("tools"))
    spoken = [] if isinstance(answer, str) else [
        place for place, turn in enumerate(answer) if turn["role"] == "assistant"
    ]  # fmt: skip
    if len(spoken) > 1 and not isinstance(answer, str):
        last = spoken[-1]
        before: Text = [*as_messages(prompt, role="user"), *answer[:last]]
        return PromptAndAnswers(before, ([answer[last]],), str(record.origin), tools)
    return PromptAndAnswers(prompt, (answer,), str(record.origin), tools)


def _measured(reader: Reader, asked: Sequence[PromptAndAnswers]) -> list[float | None]:
    both = [_with_and_without(reader.tokenizer, one, reader.longest) for one in asked]
    read = iter(reader.sums([tree for two in both if two for tree in two]))
    values: list[float | None] = []
    for two in both:
        if two is None:
            values.append(None)
            continue
        with_instruction, without = -next(read), -next(read)
        values.append(with_instruction / without if without > 0 else None)
    return values


def _with_and_without(
    tokenizer: Tokenizer, asked: PromptAndAnswers, room: int
) -> tuple[Tree, Tree] | None:
    """The answer's tokens behind the instruction, and alone; `None` where they cannot be read."""
    try:
        (tree,) = trees(tokenizer, [asked])
    except TextError:
        return None
    branch = tree.branches[0]
    ids = tuple(i for i, learnt in zip(branch.ids, branch.supervised, strict=True) if learnt)
    if len(tree) > room or not ids:
        return None
    alone = Tree((prefix_id(tokenizer),), (Branch(ids, (True,) * len(ids)),))
    return tree, alone
