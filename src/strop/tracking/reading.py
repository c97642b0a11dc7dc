"""Reads files that somebody else wrote, or is writing: none is waited for, none is too long."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import IO, Any

MOST_BYTES = 1 << 24

FAULTS = (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
"""What reading a file of another form may raise: it is missing, no text, no JSON, too deep, or
holds other things than were looked for."""


def opened(path: Path) -> IO[bytes]:
    """A regular file, to be read. Raises `OSError` for a folder, a pipe (which would be waited for)
    or a device (which may never end)."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(f"{path.name} is no file")
    return os.fdopen(handle, "rb")


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a file, UTF-8. Raises one of `FAULTS`."""
    with opened(path) as stream:
        text = stream.read(most + 1)
    if len(text) > most:
        raise ValueError(f"{path.name} has more than {most} bytes")
    return text.decode("utf-8")


def read_json(path: Path, most: int = MOST_BYTES) -> Any:
    """What a JSON file holds. Raises one of `FAULTS`."""
    return json.loads(read_text(path, most))


def said(error: BaseException) -> str:
    """The first line of what an error says."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
