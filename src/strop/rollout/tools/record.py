"""What servers answered, kept on disk and told again: a line for each request."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from strop.errors import WorldError
from strop.files import append_line
from strop.http import request_hash


@dataclass(frozen=True, slots=True)
class Exchange:
    """`Exchange("GET", "http://127.0.0.1/cities/Bern", None, 200, "{...}")`. Neither headers nor
    the recipe's own query are part of it: they may hold secrets."""

    method: str
    url: str
    body: object
    status: int
    text: str


def named(method: str, url: str, body: object) -> str:
    """The name of a request: the order of the body's keys does not count."""
    return request_hash(f"{method} {url}", body)


class Record:
    """The exchanges of a file by their requests. Raises `WorldError` for a line that is none.

    Several processes may add to one file; each knows what was there when it began, and its own.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Exchange] = {}
        if path is None or not path.exists():
            return
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                row = json.loads(line)
                del row["request"]
                one = Exchange(**row)
                self._known.setdefault(named(one.method, one.url, one.body), one)
            except (ValueError, TypeError, KeyError):
                raise WorldError(
                    "the line is no recorded answer",
                    where=f"{path}:{number}",
                    fix="delete the line; it is recorded again with live: true",
                ) from None

    def __len__(self) -> int:
        return len(self._known)

    def find(self, method: str, url: str, body: object) -> Exchange | None:
        return self._known.get(named(method, url, body))

    def add(self, one: Exchange) -> Exchange:
        """Keep an exchange; returns the one that is told from now on, the first."""
        name = named(one.method, one.url, one.body)
        if name in self._known:
            return self._known[name]
        self._known[name] = one
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            append_line(self._path, json.dumps({"request": name, **asdict(one)}))
        return one
