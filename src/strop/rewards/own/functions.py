"""Finds a user's own reward function in its file, calls it and validates its answer.

Imports only the standard library and light modules, because worker processes import this.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strop.errors import EndedBySignal, RewardError
from strop.text.nearest import did_you_mean
from strop.text.parse import plain
from strop.types import FaultKind, Text

LARGEST = 3e38
"""Rewards are held in float32, which has no larger numbers."""

VERL = ("solution_str", "ground_truth")
"""Parameters that only a reward function written for verl has."""


@dataclass(frozen=True, slots=True)
class FunctionFault:
    """What went wrong in a call: `FunctionFault("raised", "KeyError: 'answer'", count=8)`."""

    kind: FaultKind
    error: str
    count: int


@dataclass(frozen=True, slots=True)
class FunctionOutput:
    """A value or `None` for every completion, and the faults: `FunctionOutput([1.0, None],
    [FunctionFault("not_finite", "returned nan", 1)])`. `parts` are what the values are made of, by
    name (the criteria of a rubric): they are logged, and count for nothing."""

    values: list[float | None]
    faults: list[FunctionFault]
    parts: Mapping[str, list[float | None]] = field(default_factory=dict)


def nothing(count: int, kind: FaultKind, error: str) -> FunctionOutput:
    """The output of a call that failed as a whole."""
    return FunctionOutput([None] * count, [FunctionFault(kind, error, count)])


def called(function: Callable[..., Any], given: Mapping[str, Any], count: int) -> FunctionOutput:
    """Call a reward function on `count` completions; its exceptions become faults."""
    try:
        answered = function(**given)
        if isinstance(answered, FunctionOutput):
            return answered
        returned = list(answered)
    except EndedBySignal:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a reward does ends no run
        return nothing(count, "raised", f"{type(error).__name__}: {error}")
    if len(returned) != count:
        problem = f"returned {len(returned)} values for {count} completions"
        return nothing(count, "returned", problem)
    values: list[float | None] = []
    found: dict[FaultKind, list[str]] = {"returned": [], "not_finite": []}
    for value in returned:
        number, problem = _number(value)
        if problem:
            found["returned"].append(problem)
        elif number is not None and not abs(number) <= LARGEST:
            found["not_finite"].append(f"returned {number}")
            number = None
        values.append(number)
    return FunctionOutput(
        values, [FunctionFault(kind, said[0], len(said)) for kind, said in found.items() if said]
    )


def _number(value: Any) -> tuple[float | None, str]:
    """A value as a number, or its fault. Text is no number, not even `"1"`."""
    if value is None:
        return None, ""
    try:
        if isinstance(value, str | bytes):
            raise ValueError(f"{value[:50]!r} is text, no number")
        return float(value), ""
    except Exception as error:  # noqa: BLE001 - any object may stand here
        return None, f"{type(error).__name__}: {error}"


def own_names(path: Path) -> dict[str, Any]:
    """The names that a user's Python file defines, which may import its neighbours. Raises
    `RewardError` if it cannot be imported."""
    spec = importlib.util.spec_from_file_location(f"strop_user_{path.stem}", path)
    if spec is None or spec.loader is None or not path.exists():
        raise RewardError("no such Python file", where=str(path), fix="check `file:`")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look their module up there
    try:
        with beside(path):
            spec.loader.exec_module(module)
    except EndedBySignal:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's file may do anything
        raise RewardError(
            f"the file cannot be imported: {type(error).__name__}: {error}",
            where=_place_of(error, path),
            fix="install what it imports, or put it beside the file"
            if isinstance(error, ImportError)
            else "mend this line: the whole file is run when it is imported",
        ) from None
    return vars(module)


@contextlib.contextmanager
def beside(path: Path) -> Iterator[None]:
    """Imports as if the file were run: its folder is looked in first. Afterwards it is looked in
    last, for imports inside its functions, so that a neighbour's name hides no library from us."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def _place_of(error: BaseException, path: Path) -> str:
    """The last line of the file that was run, or that cannot be read: `env.py:3`."""
    if isinstance(error, SyntaxError):
        return f"{error.filename or path}:{error.lineno or 1}"
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)


def offered(names: Iterable[str], wanted: str) -> str:
    """What a file has in place of what was wanted, as a fix: the nearest name first."""
    listed = [name for name in names if not name.startswith("_")]
    hint = did_you_mean(wanted, listed)
    return f"{hint}it has {', '.join(listed)}" if listed else f"write {wanted!r} into the file"


def own_function(path: Path, name: str) -> Callable[..., Any]:
    """The reward function `name` of a file, with TRL's signature. Raises `RewardError`."""
    found = own_names(path)
    function = found.get(name)
    if not callable(function):
        has = [n for n, v in found.items() if inspect.isfunction(v)]
        raise RewardError(
            f"the file has no function {name!r}",
            where=str(path),
            fix=offered(has, name),
        )
    return as_trl(function) if is_verl(function) else function


def is_verl(function: Callable[..., Any]) -> bool:
    """`compute_score(data_source, solution_str, ground_truth, extra_info=None)`."""
    return all(name in inspect.signature(function).parameters for name in VERL)


def as_trl(function: Callable[..., Any]) -> Callable[..., list[float | None]]:
    """verl's function of one sample, as a function of a batch.

    `ground_truth` is the column of that name, or verl's `reward_model["ground_truth"]`, or the
    column `answer`; of a returned dictionary the `score` counts.
    """

    def scores(
        prompts: Sequence[Text], completions: Sequence[Text], **columns: Any
    ) -> list[float | None]:
        found = []
        for number, completion in enumerate(completions):
            row = {name: values[number] for name, values in columns.items()}
            value = function(
                data_source=row.get("data_source"),
                solution_str=plain(completion),
                ground_truth=_ground_truth(row),
                extra_info=row.get("extra_info"),
            )
            score = value["score"] if isinstance(value, dict) else value
            found.append(None if score is None else float(score))
        return found

    return scores


def _ground_truth(row: dict[str, Any]) -> Any:
    if "ground_truth" in row:
        return row["ground_truth"]
    if isinstance(row.get("reward_model"), dict):
        return row["reward_model"].get("ground_truth")
    return row.get("answer")
