"""Runs a user's reward function in a process of its own: `python -m strop.rewards.own.worker FILE
NAME`.

Reads a JSON line, writes one. It ends when its input closes, even during a call, so no worker
outlives its run.
"""

from __future__ import annotations

import base64
import inspect
import json
import os
import pickle
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

from strop.errors import RewardError
from strop.rewards.own.functions import called, nothing, own_function


def main() -> None:
    os.setsid()  # Ctrl-C must not kill the worker: the run still has a step to finish and to save
    asked, answers = _own_pipes()
    loaded = _loaded(Path(sys.argv[1]), sys.argv[2])
    answers.write("ready\n")
    answers.flush()
    lines: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(asked, lines), daemon=True).start()
    while True:
        answers.write(json.dumps(_answer(loaded, json.loads(lines.get()))) + "\n")
        answers.flush()


def _own_pipes() -> tuple[IO[bytes], IO[str]]:
    """Keep the two pipes for ourselves: the user's code reads an empty input, and its prints go to
    standard error."""
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return asked, answers


def _loaded(path: Path, name: str) -> Callable[..., Any] | RewardError:
    try:
        return own_function(path, name)
    except RewardError as error:
        return error


def _listen(asked: IO[bytes], lines: SimpleQueue[bytes]) -> None:
    for line in asked:
        lines.put(line)
    os._exit(0)


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
