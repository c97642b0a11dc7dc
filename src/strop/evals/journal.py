"""Stores the results of an eval after every part, so that nothing is measured twice."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from strop.evals.records import record_from
from strop.files import append_line, write_whole
from strop.types import EvalRecord

INPUTS = "inputs"
PARTS = "parts.jsonl"


class EvalJournal:
    """A folder beside the output, `.<output>.partial`, gone when the eval is whole.

    It is valid for one hash of the eval's inputs; with another hash it starts empty. A line that
    was cut by a kill is dropped.
    """

    def __init__(self, output: Path, inputs: str) -> None:
        self.folder = output.parent / f".{output.name}.partial"
        self.inputs = inputs
        self.done: dict[tuple[str, int], list[EvalRecord]] = {}

    def open(self) -> None:
        """Read the results of an earlier start, if its inputs were the same."""
        stamp = self.folder / INPUTS
        if not stamp.exists() or stamp.read_text() != self.inputs:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            (self.folder / PARTS).touch()
            write_whole(stamp, self.inputs)
        kept = 0
        with (self.folder / PARTS).open("rb") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                self._take(json.loads(line))
                kept += len(line)
        os.truncate(self.folder / PARTS, kept)

    def add(self, job: str, part: int, records: Sequence[EvalRecord]) -> None:
        row = {"job": job, "part": part, "records": [asdict(record) for record in records]}
        append_line(self.folder / PARTS, json.dumps(row))
        self.done[job, part] = list(records)

    def close(self) -> None:
        shutil.rmtree(self.folder)

    def _take(self, row: dict[str, object]) -> None:
        where = str(self.folder / PARTS)
        records = [record_from(record, where) for record in row["records"]]  # type: ignore[attr-defined]
        self.done[str(row["job"]), int(str(row["part"]))] = records
