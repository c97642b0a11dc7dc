"""What somebody who watches a run wants of it: to go on, to wait, to stop.

The wish is a file in the run's folder; the run reads it after every step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from strop.files import remove, write_json
from strop.tracking.reading import FAULTS, read_json

CONTROL = "control.json"
Wish = Literal["go", "pause", "stop"]
"""`pause`: the step is saved, and the process waits; `stop`: it is saved, and the process ends."""


def wish_of(folder: Path) -> Wish:
    """What is wanted of the run in this folder; a file that cannot be read wants nothing."""
    try:
        wanted = read_json(folder / CONTROL)["want"]
    except FAULTS:
        return "go"
    wish: Wish
    for wish in get_args(Wish):
        if wanted == wish:
            return wish
    return "go"


def want(folder: Path, wish: Wish) -> None:
    """Leave a wish for the run in this folder."""
    if wish == "go":
        forget(folder)
    else:
        write_json(folder / CONTROL, {"want": wish})


def forget(folder: Path) -> None:
    """Drop the wish: it was granted, or is none any more."""
    remove(folder / CONTROL)
