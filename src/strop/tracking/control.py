"""What somebody who watches a run wants of it: to go on, to wait, to stop.

The wish is a file in the run's folder; the run reads it after every step.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, get_args

from strop.files import remove, write_json

CONTROL = "control.json"
Wish = Literal["go", "pause", "stop"]
"""`pause`: the step is saved, and the process waits; `stop`: it is saved, and the process ends."""


def wish_of(folder: Path) -> Wish:
    """What is wanted of the run in this folder; a file that cannot be read wants nothing."""
    try:
        wanted = json.loads((folder / CONTROL).read_text(encoding="utf-8"))["want"]
    except (OSError, ValueError, KeyError, TypeError):
        return "go"
    return wanted if wanted in get_args(Wish) else "go"


def want(folder: Path, wish: Wish) -> None:
    """Leave a wish for the run in this folder."""
    if wish == "go":
        forget(folder)
    else:
        write_json(folder / CONTROL, {"want": wish})


def forget(folder: Path) -> None:
    """Drop the wish: it was granted, or is none any more."""
    remove(folder / CONTROL)
