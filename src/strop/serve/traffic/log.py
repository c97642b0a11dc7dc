"""The log of a server: JSONL files that are appended to, flushed batch by batch, rotated, deleted
when they are old."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from strop.errors import StropError
from strop.files import flush
from strop.recipe.serve import TrafficRecipe
from strop.serve.errors import RefusedError
from strop.serve.traffic.index import Index, Known, digest_of, known_of
from strop.serve.traffic.personal import cleared
from strop.serve.traffic.rows import files_in, number_of, rows_in

AT_ONCE = 512
"""Lines that are flushed together at most."""

OLD_EVERY = 3600.0
"""Seconds after which it is looked for files that are too old."""


@dataclass(frozen=True, slots=True)
class Line:
    """A row, and who waits until it is on the disk, to be told whether it is new."""

    row: dict[str, Any]
    written: Future[bool] | None = None


class TrafficLog:
    """What one server keeps. One thread writes; `exchange` waits for nothing, `feedback` until the
    row is on the disk.

    Where the disk takes no more, `problem` says why: exchanges are counted in `lost` then, feedback
    is refused (503), and each batch is tried anew.
    """

    def __init__(self, recipe: TrafficRecipe) -> None:
        self.recipe, self.problem, self.lost = recipe, "", 0
        self.folder = Path(recipe.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._log = logging.getLogger("strop.serve")
        for file in self.files():
            _mend(file)
        self.index = Index(self.folder)
        self._lines: queue.Queue[Line | None] = queue.Queue(maxsize=8 * AT_ONCE)
        self._stream: IO[bytes] | None = None
        self._behind = self._damaged = False
        self._coming: dict[str, Known] = {}
        self._delete_old()
        self.index.catch_up(self.files())
        self._thread = threading.Thread(target=self._work, name="traffic", daemon=True)
        self._thread.start()

    def files(self) -> list[Path]:
        return files_in(self.folder)

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows, the oldest first."""
        return rows_in(self.folder) if self.files() else iter(())

    def close(self) -> None:
        """Write what was told, and end."""
        self._lines.put(None)
        self._thread.join()
        self.index.close()

    def exchange(self, row: dict[str, Any]) -> None:
        """Keep a request with its answer, or an event."""
        if "messages" in row:
            self._coming[row["id"]] = known_of(row)
        try:
            self._lines.put_nowait(Line(row))
        except queue.Full:
            self.lost += 1
            self._coming.pop(row.get("id", ""), None)

    async def feedback(self, row: dict[str, Any]) -> bool:
        """Keep what was said of an answer; when this returns it is on the disk. `False` where the
        same was said before: then nothing is written. Raises `RefusedError` (503)."""
        row = {**row, "digest": digest_of(row)}
        try:
            if self.index.was_said(row["id"], row["digest"]):
                return False
        except sqlite3.Error as error:
            raise self._index_fails(error) from None
        written: Future[bool] = Future()
        try:
            self._lines.put_nowait(Line(row, written))
        except queue.Full:
            raise cannot_keep("too much waits to be written") from None
        return await asyncio.wrap_future(written)

    def answer(self, id_: str) -> Known | None:
        """The answer of this id, also while it is on its way to the disk. Raises `RefusedError`
        (503) where the index cannot be read."""
        try:
            return self._coming.get(id_) or self.index.answer(id_)
        except sqlite3.Error as error:
            raise self._index_fails(error) from None

    def _index_fails(self, error: sqlite3.Error) -> RefusedError:
        """What is told then; the index is made again with the next row that is written."""
        self._damaged = True
        self._log.error("the index of %s: %s", self.folder, error)
        return cannot_keep("the index of the log is made again")

    def _work(self) -> None:
        looked = time.monotonic()
        while (first := self._lines.get()) is not None:
            batch, ended = self._batch(first)
            try:
                self._write(batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait have to be told
                self._log.exception("the traffic log failed at %d rows", len(batch))
                self._refuse(batch, f"the traffic log failed: {type(error).__name__}")
            if ended:
                break
            if time.monotonic() - looked > OLD_EVERY:
                looked = time.monotonic()
                self._delete_old()
        if self._stream is not None:
            self._stream.close()

    def _batch(self, first: Line) -> tuple[list[Line], bool]:
        """The lines that come within `flush_seconds`; whether the log is to end after them."""
        batch, until = [first], time.monotonic() + self.recipe.flush_seconds
        while len(batch) < AT_ONCE:
            left = until - time.monotonic()
            try:
                line = self._lines.get(timeout=left) if left > 0 else self._lines.get_nowait()
            except queue.Empty:
                return batch, False
            if line is None:
                return batch, True
            batch.append(line)
        return batch, False

    def _write(self, batch: list[Line]) -> None:
        try:
            kept, waiting = self._kept(batch)
            self._append(kept)
        except OSError as error:
            self._log.error("%s cannot be written: %s", self.folder, error)
            self._refuse(batch, f"the traffic log cannot be written: {error.strerror}")
            return
        finally:
            for line in batch:
                if "messages" in line.row:
                    self._coming.pop(line.row["id"], None)
        self.problem = ""
        for future, new in waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(new)

    def _kept(
        self, batch: list[Line]
    ) -> tuple[list[dict[str, Any]], list[tuple[Future[bool], bool]]]:
        """The rows to be written, and who waits for them, with whether theirs is new."""
        kept: list[dict[str, Any]] = []
        waiting: list[tuple[Future[bool], bool]] = []
        told: set[tuple[str, str]] = set()
        for line in batch:
            if line.written is not None:
                said = line.row["id"], line.row["digest"]
                new = said not in told and not self._was_said(*said)
                waiting.append((line.written, new))
                if not new:  # sent twice before the first came
                    continue
                told.add(said)
            row = self._cleared(line.row)
            if row is None and line.written is not None:  # the word goes, what it was about stays
                row = _without_words(line.row)
            if row is not None:
                kept.append(row)
        return kept, waiting

    def _cleared(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """As it may be kept. What cannot be looked through is not kept: nobody knows what it
        holds."""
        try:
            return cleared(row, self.recipe.personal_data)
        except (StropError, RecursionError, ValueError) as error:
            self._log.error("a row was not kept: %s", error)
            self.lost += "digest" not in row
            return None

    def _was_said(self, id_: str, digest: str) -> bool:
        try:
            return self.index.was_said(id_, digest)
        except sqlite3.Error as error:
            self._index_fails(error)
            return False

    def _refuse(self, batch: list[Line], problem: str) -> None:
        """Tell those who wait that nothing of this was kept."""
        self.problem = problem
        waiting = [line.written for line in batch if line.written is not None]
        self.lost += len(batch) - len(waiting)
        for future in waiting:
            if not future.done() and future.set_running_or_notify_cancel():
                future.set_exception(cannot_keep(problem))

    def _append(self, rows: list[dict[str, Any]]) -> None:
        """All rows, or none: what was written in part is cut off."""
        stream = self._current()
        start = stream.seek(0, os.SEEK_END)
        try:
            left = memoryview("".join(json.dumps(row) + "\n" for row in rows).encode())
            while left:
                left = left[stream.write(left) :]
            flush(Path(stream.name))
        except OSError:
            self._stream = None
            path = Path(stream.name)
            stream.close()
            os.truncate(path, start)
            raise
        self._note(Path(stream.name).name, rows, stream.tell())

    def _note(self, name: str, rows: list[dict[str, Any]], read: int) -> None:
        """Into the index, which is read from the files again where it could not be written."""
        try:
            if self._damaged:
                self.index.remake()
            if self._behind or self._damaged:
                self.index.catch_up(self.files())
            else:
                self.index.add(name, rows, read)
            self._behind = self._damaged = False
        except (sqlite3.Error, OSError, StropError) as error:
            self._behind = True
            self._damaged |= not isinstance(error, sqlite3.OperationalError)
            self._log.error("the index of %s: %s", self.folder, error)

    def _current(self) -> IO[bytes]:
        """The file that is written, or a new one where it is full."""
        if self._stream is not None and self._stream.tell() < self.recipe.file_bytes:
            return self._stream
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        day = datetime.now(UTC).strftime("%Y%m%d")
        number = 1 + max(map(number_of, self.files()), default=0)
        path = self.folder / f"traffic-{number:06}-{day}.jsonl"
        self._stream = path.open("ab", buffering=0)
        flush(self.folder)
        return self._stream

    def _delete_old(self) -> None:
        if self.recipe.days is None:
            return
        for file in self.files():
            writing = self._stream is not None and file.name == Path(self._stream.name).name
            if writing or time.time() - file.stat().st_mtime <= self.recipe.days * 86_400:
                continue
            try:
                file.unlink()
                self.index.forget(file.name)
            except (OSError, sqlite3.Error) as error:
                self._behind = True
                self._log.error("%s is too old and could not be deleted: %s", file, error)


def _without_words(row: dict[str, Any]) -> dict[str, Any]:
    """A feedback without what was written in it."""
    return {n: v for n, v in row.items() if n not in ("edit", "comment", "explanation")}


def cannot_keep(problem: str) -> RefusedError:
    return RefusedError(503, f"the feedback was not kept: {problem}; send it again later",
                        code="not_kept", headers={"Retry-After": "5"})  # fmt: skip


def _mend(file: Path) -> None:
    """Cut off a line that was being written when the server was killed: nobody was told that it was
    there."""
    with file.open("rb+") as stream:
        size = end = stream.seek(0, os.SEEK_END)
        while end:
            start = max(end - 65_536, 0)
            stream.seek(start)
            at = stream.read(end - start).rfind(b"\n")
            if at >= 0:
                end = start + at + 1
                break
            end = start
        if end < size:
            stream.truncate(end)
