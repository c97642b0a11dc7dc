"""The state that a pipeline keeps between runs: verdicts, promotions, attempts.

Training runs and evals record their inputs in their own folders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from strop.errors import OutputError
from strop.files import write_whole
from strop.recipe.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Attempt:
    """`Attempt(2, key="9f31c0aa12b4d7e8")`: the second attempt at a recipe, data and parent, whose
    hash is `key`. It is void once that hash changes."""

    number: int
    key: str


@dataclass(frozen=True, slots=True)
class State:
    """`State({"gate": "52ab..."}, {"dpo": Attempt(2, "9f31...")}, {"/w/runs/dpo":
    "/w/runs/dpo.attempt-1"})`.

    `seen` has the hash of the last inputs of each gate and promotion; `aside` maps outputs of a
    refused attempt that still have to be moved to their new paths.
    """

    seen: Mapping[str, str] = field(default_factory=dict)
    attempts: Mapping[str, Attempt] = field(default_factory=dict)
    aside: Mapping[str, str] = field(default_factory=dict)

    def with_seen(self, stage: str, hashed: str) -> State:
        return replace(self, seen={**self.seen, stage: hashed})

    def with_attempt(self, stage: str, attempt: Attempt, aside: Mapping[str, str]) -> State:
        return replace(self, attempts={**self.attempts, stage: attempt}, aside=aside)


def state_file(pipeline: Pipeline) -> Path:
    """Beside the registry: `registry.db` and the pipeline `algebra` -> `registry.algebra.json`."""
    return Path(pipeline.registry).with_suffix(f".{pipeline.name}.json")


def read_state(pipeline: Pipeline) -> State:
    """The state, empty before the first run; raises `OutputError` for an invalid file."""
    path = state_file(pipeline)
    if not path.exists():
        return State()
    try:
        found = json.loads(path.read_text())
        attempts = {name: Attempt(**value) for name, value in found["attempts"].items()}
        return State(found["seen"], attempts, found["aside"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise OutputError(
            "not the state of a pipeline", where=str(path),
            fix="delete it: gates are judged and attempts counted anew",
        ) from None  # fmt: skip


def write_state(pipeline: Pipeline, state: State) -> None:
    """Whole or not at all."""
    path = state_file(pipeline)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(asdict(state), indent=1))
