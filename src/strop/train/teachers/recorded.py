"""What a teacher said of given answers, on disk: its likeliest tokens, and all others as one.

A run writes it once, before the first step. Another run may learn from it without the teacher, from
any of the records that it holds: each is found by the hash of its tokens.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from strop.errors import DataError
from strop.files import digest64, sha256_of_parts, write_whole
from strop.losses.distillation import lumped
from strop.model.teacher import Compare, TeacherRows, scaled
from strop.types import Origin, Tree

ABOUT = "about"
"""Key of what is kept beside the tensors."""

CHUNK = 2**22
"""Log-probs of the whole vocabulary that are there at once while they are recorded."""


@dataclass(frozen=True, slots=True)
class Said:
    """The K likeliest tokens of N rows, `ids_NK`, and their log-probs with that of all others in
    the last column, `logprobs_NK1`, nats at temperature 1."""

    ids_NK: torch.Tensor
    logprobs_NK1: torch.Tensor


@dataclass(frozen=True, slots=True)
class RecordedRows:
    """What was recorded of the rows of a forward, to be compared with a student's logits."""

    said: Said
    vocabulary: int

    def against(
        self, compare: Compare, temperature: float
    ) -> Callable[[torch.Tensor, slice], torch.Tensor]:
        """What the student's head calls with each chunk of its logits (`Head.against`)."""
        assert temperature == 1, "a lump of tokens has no temperature"

        def apart(logits_nV: torch.Tensor, rows: slice) -> torch.Tensor:
            device = logits_nV.device
            ids_nK = self.said.ids_NK[rows].to(device, torch.long)
            student_nK1 = lumped(scaled(logits_nV, self.vocabulary, 1.0), ids_nK)
            return compare(student_nK1, self.said.logprobs_NK1[rows].to(device))

        return apart


@dataclass(frozen=True, slots=True)
class Recorded:
    """Records by the hash of their tokens, with what was said of each: `Recorded(said,
    {hash: slice(0, 12)}, vocabulary=325)`."""

    said: Said = field(repr=False)
    places: dict[int, slice] = field(repr=False)
    vocabulary: int

    def rows(self, trees: Sequence[Tree]) -> RecordedRows:
        """What was said of these trees, in order."""
        places = [self.places[tree_number(tree)] for tree in trees]
        ids = torch.cat([self.said.ids_NK[place] for place in places])
        logprobs = torch.cat([self.said.logprobs_NK1[place] for place in places])
        return RecordedRows(Said(ids, logprobs), self.vocabulary)

    def expect(self, trees: Sequence[Tree], origins: Sequence[Origin], where: str) -> None:
        """Raise `DataError` unless something was recorded of all of these."""
        missing = [
            origin
            for tree, origin in zip(trees, origins, strict=True)
            if tree_number(tree) not in self.places
        ]
        if missing:
            raise DataError(
                f"the recorded log-probs are of other data: {len(missing)} of {len(trees)} records "
                f"are not in them; the first is at {missing[0]}",
                where=where,
                fix="train on the data (and with the tokenizer and template) that they were "
                "recorded of, or name the teacher itself, which records them again",
            )


def record(rows: TeacherRows, top_k: int) -> Said:
    """The likeliest tokens of each row and all others together, on the CPU."""
    at_once = max(1, CHUNK // rows.teacher.vocabulary)
    ids, logprobs = [], []
    for first in range(0, len(rows.hidden_ND), at_once):
        all_nV = rows.logprobs(slice(first, first + at_once), 1.0)
        chosen_nK = all_nV.topk(top_k, -1).indices
        ids.append(chosen_nK.to("cpu", torch.int32))
        logprobs.append(lumped(all_nV, chosen_nK).cpu())
    return Said(torch.cat(ids), torch.cat(logprobs))


def tree_number(tree: Tree) -> int:
    """A hash of everything that a forward reads of a tree, as a signed 64-bit number."""
    text = repr((tree.trunk, [(branch.ids, branch.supervised) for branch in tree.branches]))
    return digest64(text) - 2**63


def recorded_of(said: Said, trees: Sequence[Tree], vocabulary: int) -> Recorded:
    """What was said of these trees, end to end, by the hash of each."""
    places, first = {}, 0
    for tree in trees:
        tokens = sum(sum(branch.supervised) for branch in tree.branches)
        places[tree_number(tree)] = slice(first, first + tokens)
        first += tokens
    return Recorded(said, places, vocabulary)


def write(path: Path, recorded: Recorded, about: dict[str, str]) -> None:
    """Keep it under `about`: who said it (`key`), and the hash of the tokenizer (`tokenizer`)."""
    spans = [(number, place.start, place.stop) for number, place in recorded.places.items()]
    tensors = {
        "ids_NK": recorded.said.ids_NK,
        "logprobs_NK1": recorded.said.logprobs_NK1,
        "places_T3": torch.tensor(spans, dtype=torch.long).view(-1, 3),
    }
    kept = {**about, "vocabulary": recorded.vocabulary, "digest": _digest(tensors)}
    write_whole(path, save(tensors, metadata={ABOUT: json.dumps(kept)}))  # in one key: an order


def cached(path: Path, key: str) -> Recorded | None:
    """What this run kept under the same `key`; a damaged file is written again, with a warning."""
    if not path.exists():
        return None
    try:
        recorded, about = _read(path)
    except (SafetensorError, KeyError, ValueError) as error:
        warnings.warn(
            f"{path} is damaged ({error}): the teacher's log-probs are computed again", stacklevel=2
        )
        return None
    return recorded if about.get("key") == key else None


def read_recorded(path: Path, tokenizer: str) -> Recorded:
    """What another run kept; raises `DataError` for a file that cannot be read, or of another
    tokenizer."""
    try:
        recorded, about = _read(path)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(
            f"no recorded log-probs can be read ({error})",
            where=str(path),
            fix="name the teacher.safetensors of a run with method: distil and objective.top_k; "
            "what held-out records (`eval`) were told is beside it, in eval_teacher.safetensors",
        ) from None
    if about.get("tokenizer") != tokenizer:
        raise DataError(
            "the log-probs were recorded with another tokenizer than the student's, so their token "
            "ids mean other tokens",
            where=str(path),
            fix="record them with a teacher of the student's tokenizer",
        )
    return recorded


def _read(path: Path) -> tuple[Recorded, dict[str, Any]]:
    """Raises `ValueError` for tensors that are not those that were written."""
    with safe_open(path, framework="pt") as file:
        about: dict[str, Any] = json.loads((file.metadata() or {})[ABOUT])
        tensors = {name: file.get_tensor(name) for name in ("ids_NK", "logprobs_NK1", "places_T3")}
    if about["digest"] != _digest(tensors):
        raise ValueError("its numbers are not those that were written")
    places = {number: slice(start, stop) for number, start, stop in tensors["places_T3"].tolist()}
    said = Said(tensors["ids_NK"], tensors["logprobs_NK1"])
    return Recorded(said, places, int(about["vocabulary"])), about


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    return sha256_of_parts(tensors[name].numpy().tobytes() for name in sorted(tensors))
