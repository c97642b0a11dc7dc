"""What servers answered, kept on disk and told again: a line for each request."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from strop.errors import WorldError
from strop.files import adding, not_added_to
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
    """The exchanges of a file by their requests. Raises `WorldError` for a file that cannot be read
    or, with `live`, written, and for a line that is no exchange.

    With `live` several processes may add to one file: the first answer to a request is the one that
    all of them tell. Without, it stays as it was when it was read.
    """

    def __init__(self, path: Path | None, *, live: bool) -> None:
        self._path, self._live = path, live
        self._known: dict[str, Exchange] = {}
        self._read = self._lines = 0
        """Bytes and lines that are known."""
        if path is None:
            return
        with self._explained("read"):
            if path.exists():
                with not_added_to(path) as stream:
                    self._learn(stream)
            if live:
                _expect_writable(path)

    def __len__(self) -> int:
        return len(self._known)

    def find(self, method: str, url: str, body: object) -> Exchange | None:
        name = named(method, url, body)
        if name not in self._known and self._live and self._path is not None:
            with self._explained("read"):
                if self._path.exists() and self._path.stat().st_size != self._read:
                    with not_added_to(self._path) as stream:
                        self._learn(stream)
        return self._known.get(name)

    def add(self, one: Exchange) -> Exchange:
        """Keep an exchange; returns the one that is told from now on, the first."""
        name = named(one.method, one.url, one.body)
        if self._path is None or name in self._known:
            return self._known.setdefault(name, one)
        with self._explained("written"), adding(self._path) as stream:
            whole = self._learn(stream)
            if name not in self._known:
                line = json.dumps({"request": name, **asdict(one)}).encode() + b"\n"
                stream.write(line if whole else b"\n" + line)
                self._known[name] = one
        return self._known[name]

    def _learn(self, stream: IO[bytes]) -> bool:
        """Read what was added since the file was last looked at; whether it ends in a whole
        line."""
        size = os.fstat(stream.fileno()).st_size
        if size < self._read:  # somebody wrote another file in its place
            self._read = self._lines = 0
        stream.seek(self._read)
        added = stream.read()
        for number, line in enumerate(added.split(b"\n"), self._lines + 1):
            if line.strip():
                one = self._exchange(line, number)
                self._known.setdefault(named(one.method, one.url, one.body), one)
        self._lines += added.count(b"\n")
        self._read = size
        stream.seek(max(0, size - 1))
        return stream.read() in (b"", b"\n")

    def _exchange(self, line: bytes, number: int) -> Exchange:
        try:
            row = json.loads(line.decode("utf-8-sig"))
            del row["request"]
            one = Exchange(**row)
            texts = all(isinstance(text, str) for text in (one.method, one.url, one.text))
            if texts and type(one.status) is int:
                return one
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        raise WorldError(
            "the line is no recorded answer",
            where=f"{self._path}:{number}",
            fix="delete the line; it is recorded again with live: true",
        )

    @contextmanager
    def _explained(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WorldError(
                f"the record cannot be {done}: {error.strerror}",
                where=str(self._path),
                fix="name a file that this process may read and write",
            ) from None


def _expect_writable(path: Path) -> None:
    """Raise `OSError` where nothing could be added, before anything is asked."""
    place = path
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        raise PermissionError(13, "nothing may be written here")
