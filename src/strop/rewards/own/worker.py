"""Runs a user's reward function in a process of its own: `python -m strop.rewards.own.worker FILE
NAME`.

Reads a JSON line, writes one. It ends when its input closes, even during a call, so no worker
outlives its run.
"""

from __future__ import annotations

import base64
import inspect
import json
import pickle
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from strop.errors import RewardError
from strop.rewards.own.functions import called, nothing, own_function
from strop.sandbox.orders import orders


def main() -> None:
    lines, answers = orders()
    loaded = _loaded(Path(sys.argv[1]), sys.argv[2])
    answers.write("ready\n")
    answers.flush()
    while True:
        answers.write(json.dumps(_answer(loaded, json.loads(lines.get()))) + "\n")
        answers.flush()


def _loaded(path: Path, name: str) -> Callable[..., Any] | RewardError:
    try:
        return own_function(path, name)
    except RewardError as error:
        return error


def _answer(loaded: Callable[..., Any] | RewardError, request: dict[str, Any]) -> dict[str, Any]:
    if "call" not in request:
        return _described(loaded)
    if isinstance(loaded, RewardError):
        return asdict(nothing(request["count"], "raised", loaded.problem))
    given = pickle.loads(base64.b64decode(request["call"]))
    return asdict(called(loaded, given, request["count"]))


def _described(loaded: Callable[..., Any] | RewardError) -> dict[str, Any]:
    """The function's parameters: name, kind, and whether it has a default."""
    if isinstance(loaded, RewardError):
        return {"error": [loaded.problem, loaded.where, loaded.fix]}
    parameters = inspect.signature(loaded).parameters.values()
    return {"parameters": [[p.name, int(p.kind), p.default is not p.empty] for p in parameters]}


if __name__ == "__main__":
    main()
