"""Perplexity: how likely the model finds held-out text, or held-out answers to their prompts."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from strop.data.forms import Row
from strop.data.items import cluster_of, item_of, slices_of
from strop.data.records import demonstration, document, fits
from strop.data.sources import read
from strop.errors import DataError, UnscoredError, UsageError
from strop.evals.continuations import prefix_id, windows
from strop.evals.reading import Reader
from strop.recipe.suite import PerplexityTask
from strop.text.encode import Encoder
from strop.text.parse import decode, plain
from strop.text.render import demonstration_tree
from strop.types import Demonstration, EvalRecord, Origin, Task, Text, Tree


@dataclass(frozen=True, slots=True)
class Passage:
    """A text, `Passage(Task("15 / 3 = 5", {}, origin), None)`, or an answer to its prompt,
    `Passage(Task("2x = 6", {...}, origin), "x = 3")`."""

    task: Task
    completion: Text | None

    @property
    def where(self) -> str:
        return str(self.task.origin)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Figures of a whole corpus, as lm-eval defines them; `token` is its sibling over tokens.

    `Corpus(token=12.1, word=310.5, byte=2.9, bits_per_byte=1.54)`. The first three are exp(nats per
    unit); the last is in bits per byte.
    """

    token: float
    word: float
    byte: float
    bits_per_byte: float


def rows_of(recipe: PerplexityTask) -> list[Passage]:
    """The items of a task. `DataError` names file and line of the first invalid row."""
    return read(recipe.data, parse, held_out=True)


def parse(row: Row, origin: Origin) -> Passage:
    """`{"text"}` is measured whole; of `{"prompt", "completion"}` or `{"messages"}` only the
    answers."""
    if fits("demonstration", row):
        answer = demonstration(row, origin)
        columns = {**answer.columns, "completion": answer.completion}
        return Passage(Task(answer.prompt, columns, origin), answer.completion)
    if not fits("document", row):
        raise DataError(
            f"wrong columns for perplexity: found {{{', '.join(row)}}}", where=str(origin),
            fix='give every line {"text"}, {"prompt", "completion"} or {"messages"}',
        )  # fmt: skip
    columns = {name: value for name, value in row.items() if name != "text"}
    return Passage(Task(document(row, origin).text, columns, origin), None)


def score_rows(reader: Reader, recipe: PerplexityTask, rows: Sequence[Passage]) -> list[EvalRecord]:
    """`<name>/logprob` of every passage: nats per predicted token, higher is better. `None` where
    it is not finite.

    The details are the sums that `corpus_of` reads: `nll` (nats), `tokens`, `words`, `bytes`.
    """
    encoder, window = Encoder(reader.tokenizer), _window(reader, recipe)
    asked = [passage_trees(encoder, row, window) for row in rows]
    _expect_readable(reader, recipe, [tree for trees in asked for tree in trees])
    read = iter(reader.sums([tree for trees in asked for tree in trees]))
    records = []
    for row, trees in zip(rows, asked, strict=True):
        branches = [branch for tree in trees for branch in tree.branches]
        nll, tokens = -sum(next(read) for _ in branches), sum(sum(b.supervised) for b in branches)
        records.append(_record(recipe, row, nll, tokens, _measured(encoder, row, trees)))
    return records


def passage_trees(encoder: Encoder, row: Passage, window: int) -> list[Tree]:
    """The tokens to predict: all tokens of a text, the first after BOS (or EOS); of a conversation
    the assistant's tokens, end-of-sequence tokens included."""
    text = row.task.prompt
    if row.completion is None:
        assert isinstance(text, str)
        ids = encoder.ids(text, special=False)
        return windows(ids, prefix_id(encoder.tokenizer), window)
    answer = Demonstration(text, row.completion, row.task.columns, row.task.origin)
    tree = demonstration_tree(encoder.tokenizer, answer)
    tokens = len(tree.trunk) + max(len(branch.ids) for branch in tree.branches)
    if tokens > window + 1:
        raise DataError(
            f"prompt and answer are {tokens} tokens, the model reads {window}",
            where=row.where,
            fix="shorten the record or drop the line",
        )
    return [tree]


def corpus_of(records: Sequence[EvalRecord], name: str) -> Corpus:
    """The figures of all passages of a task together; unscored ones are left out.

    Raises `UnscoredError` where nothing is left.
    """
    mine = [r for r in records if r.task == f"{name}/logprob" and r.score is not None]
    if not mine:
        raise UnscoredError(f"{name}: no passage has a finite log-prob")
    nll, tokens, words, size = (
        math.fsum(record.details[key] or 0.0 for record in mine)
        for key in ("nll", "tokens", "words", "bytes")
    )
    return Corpus(
        token=_exp(nll / tokens),
        word=_exp(nll / words),
        byte=_exp(nll / size),
        bits_per_byte=nll / size / math.log(2),
    )


def _record(recipe: PerplexityTask, row: Passage, nll: float, tokens: int, text: str) -> EvalRecord:
    known = math.isfinite(nll)
    completion = row.completion
    return EvalRecord(
        task=f"{recipe.name}/logprob",
        item=item_of(row.task),
        score=-nll / tokens if known else None,
        cluster=cluster_of(row.task),
        prompt="" if completion is None else plain(row.task.prompt),
        output="" if completion is None else plain(completion),
        details={
            "nll": nll if known else None,
            "tokens": float(tokens),
            "words": float(len(re.split(r"\s+", text))),  # as lm-eval counts them
            "bytes": float(len(text.encode())),
        },
        slices=slices_of(row.task, recipe.slices),
    )


def _measured(encoder: Encoder, row: Passage, trees: Sequence[Tree]) -> str:
    """The text whose tokens are predicted."""
    if row.completion is None:
        return str(row.task.prompt)
    said = [
        [i for i, learn in zip(branch.ids, branch.supervised, strict=True) if learn]
        for branch in trees[0].branches
    ]
    return "".join(decode(encoder.tokenizer, ids) for ids in said)


def _expect_readable(reader: Reader, recipe: PerplexityTask, trees: Sequence[Tree]) -> None:
    """Raise `UsageError` for a window that a server cannot read, although the model could."""
    tokens = max(len(tree.trunk) + len(one.ids) for tree in trees for one in tree.branches)
    if tokens > reader.longest:
        raise UsageError(
            f"task {recipe.name} reads {tokens} tokens at once, the server {reader.longest}",
            fix=f"set window to {reader.longest - 1} for all models that are compared, or start "
            "the server with a longer --max-model-len",
        )


def _window(reader: Reader, recipe: PerplexityTask) -> int:
    context = reader.context
    if recipe.window is not None and recipe.window > context:
        raise UsageError(
            f"task {recipe.name}: window is {recipe.window} tokens, the model reads {context}",
            fix=f"set window to {context} or less, or drop it",
        )
    return recipe.window or context


def _exp(nats: float) -> float:
    """A text without spaces is one word, whose perplexity can be beyond any float."""
    return math.exp(nats) if nats < 709 else math.inf
