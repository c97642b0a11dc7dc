"""Guards a run against a user's reward function that hangs or crashes."""

from __future__ import annotations

import base64
import inspect
import pickle
import sys
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from strop.errors import RewardError
from strop.rewards.own.functions import FunctionFault, FunctionOutput, nothing
from strop.sandbox.workers import Reply, Workers
from strop.types import FaultKind

LOADING = 300.0
"""Seconds that importing the user's file may take."""

STUCK = 3
"""After this many completions that hang or kill the worker, the rest are left unscored."""

KINDS = {int(kind): kind for kind in (
    inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.VAR_KEYWORD,
)}  # fmt: skip


class GuardedFunction:
    """Function `name` of the Python file `path`, in a worker process that imports the file once.

    After `seconds` the worker is killed; if it dies by itself, the call is repeated once. The
    process ends when this object is deleted. Raises `RewardError` for a file that cannot be
    imported or has no such function.
    """

    def __init__(self, path: Path, name: str, seconds: float) -> None:
        self.seconds = seconds
        command = [sys.executable, "-m", "strop.rewards.own.worker", str(path), name]
        self._workers = Workers(command, count=1, starts_within=LOADING, shows_errors=True,
                                grouped=True)  # fmt: skip
        weakref.finalize(self, self._workers.close).atexit = False  # they end by themselves then
        self.__signature__ = self._signature(path)

    def __call__(self, **given: Any) -> list[float | None]:
        """The values without the faults; every argument is a column as long as `completions`."""
        return self.judge(given, {}).values

    def judge(
        self, columns: Mapping[str, Sequence[Any]], options: Mapping[str, Any]
    ) -> FunctionOutput:
        """A value for every completion. If the call fails, each completion is scored alone, so that
        one of them does not spoil the others."""
        count = len(columns["completions"])
        whole, stuck = self._call({**columns, **options}, count)
        if count == 1 or not (stuck or any(fault.kind == "raised" for fault in whole.faults)):
            return whole
        left = STUCK
        answers: list[FunctionOutput] = []
        for i in range(count):
            if not left:
                last = answers[-1].faults[0] if answers[-1].faults else whole.faults[0]
                answers.append(nothing(count - i, last.kind, last.error))
                break
            one = {name: [values[i]] for name, values in columns.items()}
            answer, stuck = self._call({**one, **options}, 1)
            left -= stuck
            answers.append(answer)
        return _joined(answers)

    def _call(self, given: Mapping[str, Any], count: int) -> tuple[FunctionOutput, bool]:
        """The output, and whether the worker was lost."""
        packed = base64.b64encode(pickle.dumps(dict(given))).decode()
        (reply,) = self._workers.ask([{"call": packed, "count": count}], self.seconds)
        if reply.failed is not None:
            return nothing(count, _kind(reply), reply.failed), True
        faults = [FunctionFault(**fault) for fault in reply.answer["faults"]]
        return FunctionOutput(reply.answer["values"], faults), False

    def _signature(self, path: Path) -> inspect.Signature:
        (reply,) = self._workers.ask([{}], LOADING)
        if reply.failed is not None:
            raise RewardError(
                f"the file's process ended while it was imported ({reply.failed})",
                where=str(path),
                fix="import the file by hand: python FILE",
            )
        if "error" in reply.answer:
            problem, where, fix = reply.answer["error"]
            raise RewardError(problem, where=where, fix=fix)
        none = inspect.Parameter.empty
        parameters = [
            inspect.Parameter(name, KINDS[kind], default=None if optional else none)
            for name, kind, optional in reply.answer["parameters"]
        ]
        return inspect.Signature(parameters)


def _kind(reply: Reply) -> FaultKind:
    return "hung" if reply.slow else "ended"


def _joined(answers: Sequence[FunctionOutput]) -> FunctionOutput:
    """Concatenated outputs; faults of one kind are counted together under the first message."""
    faults: dict[FaultKind, FunctionFault] = {}
    for fault in (fault for answer in answers for fault in answer.faults):
        before = faults.get(fault.kind)
        error, count = (before.error, before.count) if before else (fault.error, 0)
        faults[fault.kind] = FunctionFault(fault.kind, error, count + fault.count)
    return FunctionOutput(
        [value for answer in answers for value in answer.values], list(faults.values())
    )
