"""Text that a user names, read without trust: no pipe is waited for, no device read for ever."""

from __future__ import annotations

from pathlib import Path

from strop.errors import UsageError

RECIPE_BYTES = 1 << 18
"""A longer YAML file was not written by hand."""

JSON_BYTES = 1 << 30
"""A longer JSON file is not held in memory; JSONL is read by line."""


def read_text(path: Path, refusal: type[UsageError], *, limit: int = JSON_BYTES) -> str:
    """The UTF-8 text of a regular file of at most `limit` bytes, without a byte-order mark.

    Raises `refusal` for a folder, a pipe or a device, and for bytes that are no such text.
    """
    try:
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "a pipe or a device"
            raise refusal(f"cannot read the file: it is {what}", where=str(path),
                          fix="give a file")  # fmt: skip
        with path.open("rb") as stream:
            held = stream.read(limit + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        said = error.strerror if isinstance(error, OSError) else error
        raise refusal(f"cannot read the file: {said}", where=str(path),
                      fix="check the path and its permissions") from None  # fmt: skip
    if len(held) > limit:
        raise refusal(f"the file is longer than {limit >> 10} KiB", where=str(path),
                      fix="give the file that was meant")  # fmt: skip
    try:
        return held.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = held.count(b"\n", 0, error.start) + 1
        raise refusal("the file is not UTF-8 text", where=f"{path}:{line}",
                      fix="save the file as UTF-8") from None  # fmt: skip
