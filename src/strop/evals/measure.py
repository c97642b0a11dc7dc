"""Scores of a suite on a model that is already loaded, measured by all processes of a run."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from strop.distributed.deal import dealt
from strop.distributed.world import ALONE, World
from strop.engines.engine import Engine
from strop.engines.local.engine import LocalEngine
from strop.errors import UnscoredError
from strop.evals.drift import PREFIX
from strop.evals.jobs import ANSWERS, EvalSetup, Job, jobs_of
from strop.evals.records import mean_scores
from strop.model.network import Policy
from strop.recipe.suite import Suite
from strop.text.chat.clock import written_on
from strop.types import EvalRecord


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one part of a job that have to be judged together: `Piece(0, 2, (5, 9))` are rows 5
    and 9 of the third part of the first job."""

    job: int
    part: int
    rows: tuple[int, ...]


Judged = list[EvalRecord] | UnscoredError
"""The records of a process's rows of a part, or that none of them could be scored."""


def measure(suite: Suite, policy: Policy, world: World = ALONE) -> dict[str, float]:
    """Mean score of every task of a suite; every data rank judges some of the items."""
    return measure_engine(suite, LocalEngine("in memory", policy), world)


def measure_engine(suite: Suite, engine: Engine, world: World = ALONE) -> dict[str, float]:
    """The same of whoever an engine asks."""
    asked_of = engine.with_template(suite.template)
    with written_on(suite.date):
        jobs = jobs_of(suite, EvalSetup(asked_of, None, suite.seed))
        records = judged_together(jobs, world)
    return mean_scores([record for record in records if not record.task.startswith(PREFIX)])


def judged_together(jobs: Sequence[Job], world: World) -> list[EvalRecord]:
    """All records, job by job and part by part."""
    pieces = pieces_of(jobs)
    shares = dealt([_size(jobs[one.job], one) for one in pieces], world.data_size)
    own = [pieces[i] for i in shares[world.data_rank]]
    every = world.by_data_rank({place: _judged(jobs, place, own) for place in places_of(own)})
    records: list[EvalRecord] = []
    for place in places_of(pieces):
        found = [one[place] for one in every if place in one]
        if any(isinstance(one, UnscoredError) for one in found):
            found = [world.first_group(lambda place=place: _judged_whole(jobs, place))]  # type: ignore[misc]
        records += [record for one in found if isinstance(one, list) for record in one]
    return records


def pieces_of(jobs: Sequence[Job]) -> list[Piece]:
    """The smallest pieces that can be judged apart, in order."""
    pieces = []
    for number, job in enumerate(jobs):
        for part, rows in enumerate(job.parts()):
            together: dict[Hashable, list[int]] = {}
            for row, content in enumerate(rows):
                together.setdefault(job.together(content) or row, []).append(row)
            pieces += [Piece(number, part, tuple(one)) for one in together.values()]
    return pieces


def places_of(pieces: Sequence[Piece]) -> list[tuple[int, int]]:
    """Job and part of each piece, once."""
    return list(dict.fromkeys((one.job, one.part) for one in pieces))


def _size(job: Job, piece: Piece) -> float:
    """A job that is not cut, such as one of lm-eval, holds many items that nobody knows of yet."""
    return ANSWERS if job.part == 1 and len(job.rows) == 1 else len(piece.rows)


def _judged(jobs: Sequence[Job], place: tuple[int, int], own: Sequence[Piece]) -> Judged:
    job, part = place
    rows = list(jobs[job].parts())[part]
    numbers = sorted(row for one in own if (one.job, one.part) == place for row in one.rows)
    try:
        return jobs[job].judge([rows[number] for number in numbers])
    except UnscoredError as error:
        return error


def _judged_whole(jobs: Sequence[Job], place: tuple[int, int]) -> list[EvalRecord]:
    """A part of which a process could score nothing, as one process judges it: it raises where
    nothing of the whole part can be scored."""
    job, part = place
    rows: Sequence[Any] = list(jobs[job].parts())[part]
    return jobs[job].judge(rows)
