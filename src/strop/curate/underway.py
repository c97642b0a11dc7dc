"""What a data verb has worked out so far, on disk, so that an interrupted one goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from strop.files import SHORT, remove, sha256_hex, write_rows

Row = Mapping[str, Any]


class Underway:
    """Parts of the work, each a file in the folder `.<output>.underway` beside the output.

    A part is named by the hash of all that it depends on, so that nothing is taken over for other
    inputs or settings. Without an output nothing is kept.
    """

    def __init__(self, output: Path | None) -> None:
        self.folder = None if output is None else folder_of(output)

    def read(self, key: Any) -> list[Row] | None:
        """The rows of a part that is done; `None` where it is still to do."""
        if self.folder is None or not (file := self._file(self.folder, key)).exists():
            return None
        return list(_rows(file))

    def write(self, key: Any, rows: Iterable[Row]) -> None:
        """Keep a part that is done, whole or not at all."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_rows(self._file(self.folder, key), rows)

    def close(self) -> None:
        """Forget everything: the output is whole."""
        if self.folder is not None:
            remove(self.folder)

    def _file(self, folder: Path, key: Any) -> Path:
        return folder / f"{sha256_hex(json.dumps(key, sort_keys=True, default=str), SHORT)}.jsonl"


def folder_of(output: Path) -> Path:
    """Where the parts of an output are kept while it is made."""
    return output.parent / f".{output.name}.underway"


def _rows(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)
