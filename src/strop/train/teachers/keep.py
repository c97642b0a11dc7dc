"""A run's record of its teacher: made before step 1, found again when the run is resumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from strop.distributed.deal import share_of
from strop.distributed.world import World
from strop.errors import DataError
from strop.files import sha256_of_parts
from strop.model.network import Policy
from strop.model.teacher import LocalTeacher
from strop.text.lazy import Chosen
from strop.text.trees import Rendered
from strop.train.loop.micro_batches import micro_batches
from strop.train.teachers.build import Teaching, tokens_hash
from strop.train.teachers.recorded import (
    Recorded,
    Said,
    cached,
    record,
    recorded_of,
    tree_number,
    write,
)
from strop.types import Record, Tree

FILE = "teacher.safetensors"


def kept_or_made(
    teaching: Teaching,
    policy: Policy,
    rendered: Rendered,
    chosen: NDArray[np.int64],
    *,
    top_k: int,
    path: Path,
    max_tokens: int,
    world: World,
) -> Recorded:
    """The teacher's `top_k` likeliest tokens at each place of these records.

    Taken from `path` where that was written with the same teacher, view, data and `top_k`; else
    every data rank of `world` asks the teacher about a part.
    """
    teacher = teaching.whole()
    assert isinstance(teacher, LocalTeacher)
    trees = [rendered.trees[i] for i in chosen]
    asked = Chosen(rendered.records, chosen)
    read = teaching.trees(trees, asked)
    numbers = [tree_number(tree) for tree in trees]
    heard = numbers
    if teaching.informed is not None:
        _expect_one_reading(numbers, read, asked)
        heard = [tree_number(tree) for tree in read]
    key = f"{teaching.key}/{top_k}/{_hash_of(numbers)}/{_hash_of(heard)}"
    found = world.first(lambda: cached(path, key))
    if found is not None:
        return found
    own = share_of(len(trees), world.data_rank, world.data_size)
    said = [
        record(teacher.rows(cut.trees), top_k)
        for cut in micro_batches(read[own.start : own.stop], max_tokens)
    ]
    parts = [part for rank in world.by_data_rank(said) for part in rank]
    whole = Said(
        torch.cat([torch.zeros(0, top_k, dtype=torch.int32), *(part.ids_NK for part in parts)]),
        torch.cat([torch.zeros(0, top_k + 1), *(part.logprobs_NK1 for part in parts)]),
    )
    made = recorded_of(whole, trees, teacher.vocabulary)
    about = {"key": key, "tokenizer": tokens_hash(policy.tokenizer), "teacher": teaching.key}
    world.first(lambda: write(path, made, about))
    return made


def _expect_one_reading(
    numbers: Sequence[int], read: Sequence[Tree], asked: Sequence[Record]
) -> None:
    """Raise `DataError` for records that are equal to the student and not to the teacher: what is
    recorded is found again by what the student reads."""
    first: dict[int, int] = {}
    for n, number in enumerate(numbers):
        before = first.setdefault(number, n)
        if read[before].trunk != read[n].trunk:
            raise DataError(
                f"this record has the prompt and the answer of that at {asked[before].origin}, and "
                "the teacher is told something else, so that one recorded answer cannot hold both",
                where=str(asked[n].origin),
                fix="drop one of the two, or drop objective.top_k, so that the teacher is asked in "
                "every step",
            )


def _hash_of(numbers: Sequence[int]) -> str:
    return sha256_of_parts(str(number).encode() for number in numbers)
