"""Asks a user's player in a process of its own: `python -m strop.rollout.games.own.worker FILE
CLASS`.

`{"look": true}`, or a board as its bytes in hex and the name of their type, a line in; the moves,
or why there are none, a line out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from strop.errors import WorldError
from strop.rollout.games.own.made import made_of
from strop.rollout.tools.said import readable
from strop.sandbox.orders import orders

LONGEST = 1_000
"""Characters of what is told of an error."""

Answer = dict[str, Any]


def main() -> None:
    lines, answers = orders()
    path, name = Path(sys.argv[1]), sys.argv[2]
    sys.path.insert(0, str(path.parent))  # as if the file were run: it may import its neighbours
    made, problem = _made(path, name)
    print("ready", file=answers, flush=True)
    while True:
        order = json.loads(lines.get())
        answer = problem or (_moves(made, order) if "board" in order else {})
        print(json.dumps(answer), file=answers, flush=True)


def _made(path: Path, name: str) -> tuple[Any, Answer]:
    try:
        return made_of(path, name, ("best",)), {}
    except WorldError as error:
        return None, {"refused": [error.problem, error.where, error.fix]}


def _moves(made: Any, order: Answer) -> Answer:
    """The numbers that `best` gives: `moves`, or what else it gives: `odd`, or what it raises:
    `failed`."""
    board = np.frombuffer(bytes.fromhex(order["board"]), dtype=order["type"])
    try:
        said = made.best(board.copy())
        found = np.asarray(said)
        if found.ndim == 1 and found.dtype.kind in "iu":
            return {"moves": found.tolist()}
        return {"odd": readable(repr(found.tolist())[:LONGEST])}
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, it costs this game alone
        return {"failed": readable(f"{type(error).__name__}: {error}"[:LONGEST])}


if __name__ == "__main__":
    main()
