"""What a model folder says: its size, whether it was taught to answer, how far its SFT came."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from strop.data.records import any_record
from strop.data.sources import at, read
from strop.errors import UsageError
from strop.evals.reading import PolicyReader
from strop.evals.tasks.perplexity import Passage, corpus_of, score_rows
from strop.model.load import expect_weights, load_config, load_for_inference, load_tokenizer
from strop.model.network import Policy
from strop.recipe.suite import PerplexityTask
from strop.recipe.train.data import DataSource
from strop.recipe.train.methods import METHODS
from strop.registry.lineage import ancestry, generations
from strop.tracking.runlog import read_rows
from strop.train.preflight.cost.shape import shape_of
from strop.types import Document, Origin, Task

STILL_FALLING = 0.01
"""Share by which the last third of a loss curve lies below the third before it, from which the loss
is still falling; the difference also has to be beyond its noise."""
FEWEST_STEPS = 12
"""Steps below which a curve says nothing of a plateau."""
DOCUMENTS, BYTES = 48, 2_000
"""Documents, and bytes of each, that a model reads to measure how foreign they are."""

ORDINARY = (
    "The train was late again, so we bought two cups of tea and sat on the bench by the old "
    "clock. A boy fed the pigeons with the crust of his bread while his sister counted the "
    "wagons of a goods train. Nobody seemed to be in a hurry.",
    "When the shop opened in spring, the owner did not expect many people to come. She had "
    "painted the door green, put a table in front of the window, and asked the baker next door "
    "for a box of rolls. By noon she had sold all of them and had to ask for more.",
    "It rained for most of the week, and the river rose as far as the steps behind the church. "
    "On Friday the sun came out, the children went back to school, and the men from the council "
    "measured how much of the path had been washed away.",
    "My uncle repairs clocks. He says that most of them are not broken but only dirty, and that "
    "people could save a good deal of money if they opened the back once a year. Still, he is "
    "glad that they do not, because he would have nothing to do.",
)
"""Plain prose, written for this: what every general model reads easily."""


def read_model(folder: Path) -> dict[str, Any]:
    """`{"model": True, "parameters": 134515008, "tuned": True, "plateau": None}`.

    A base model is one without a chat template whose lineage, if it has one, holds no method that
    teaches to answer. Raises `UsageError` where there is no folder,
    `ModelError` where it holds no model.
    """
    if not folder.is_dir():
        raise UsageError("no such model folder", where=str(folder),
                         fix="give the folder of the model that would be trained")  # fmt: skip
    expect_weights(str(folder))
    config = load_config(str(folder), False)
    tokenizer = load_tokenizer(str(folder))
    methods = [one.get("method") for one in generations(ancestry(folder))]
    taught = any(name in METHODS and name != "cpt" for name in methods)
    return {
        "model": True,
        "parameters": shape_of(config).parameters,
        "tuned": taught or bool(tokenizer.chat_template),
        "plateau": _plateau(folder, methods[-1]),
    }


def _plateau(folder: Path, method: str | None) -> bool | None:
    """Whether the run that wrote this model, an SFT, has stopped to gain."""
    log = folder.parent / "metrics.jsonl"
    if method not in ("sft", "dft") or not log.exists():
        return None
    rows = list(read_rows(log))
    held_out = [row["eval_loss"] for row in rows if row.get("eval_loss") is not None]
    losses = held_out if len(held_out) >= FEWEST_STEPS else [
        row["loss"] for row in rows if row.get("loss") is not None
    ]  # fmt: skip
    return has_flattened(losses)


def has_flattened(losses: Sequence[float]) -> bool | None:
    """Whether the last third of a curve lies less than 1 % below the third before it, or not beyond
    its noise (two standard errors); `None` for fewer than 12 points."""
    third = len(losses) // 3
    if len(losses) < FEWEST_STEPS:
        return None
    middle, last = losses[-2 * third : -third], losses[-third:]
    fall = _mean(middle) - _mean(last)
    error = math.sqrt((_variance(middle) + _variance(last)) / third)
    return fall < max(STILL_FALLING * abs(_mean(middle)), 2 * error)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)


def domain_ratio(folder: Path, documents: Sequence[str]) -> float | None:
    """Bits a byte on the documents over those on ordinary prose; `None` without documents."""
    sources = [at(path) for path in documents]
    held = (one for one in read(sources, any_record) if isinstance(one, Document))
    drawn = [Passage(Task(one.text[:BYTES], {}, one.origin), None)
             for one in islice(held, DOCUMENTS)]  # fmt: skip
    if not drawn:
        return None
    policy = load_for_inference(str(folder))
    plain = [Passage(Task(text, {}, Origin("prose", 1)), None) for text in ORDINARY]
    return _bits_a_byte(policy, drawn, sources) / _bits_a_byte(policy, plain, sources)


def _bits_a_byte(
    policy: Policy, passages: Sequence[Passage], sources: Sequence[DataSource]
) -> float:
    task = PerplexityTask(kind="perplexity", name="read", data=list(sources))
    return corpus_of(score_rows(PolicyReader(policy), task, passages), task.name).bits_per_byte
