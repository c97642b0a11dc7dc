"""How bytes reach a disk and come back: hashed, written whole and durably, locked, read in bounds.

A file that somebody else reads (a resumed run, a gate, a person) is written by a function of this
module: then it is there as a whole or not at all, also after a power cut. Inside a temporary folder
`open` is enough: `place` and `publish` flush all that is in it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from strop.errors import OutputError, UsageError

LOCK = ".lock"
WORKS = "another run works in this folder"
"""The file in a folder that holds the lock of the process that works there."""

BEFORE = ".before"
"""The end of the hidden name of a folder that is being replaced."""

READ_BYTES = 1 << 30
"""A longer text is not held in memory; JSONL is read by line."""

SHORT = 16
"""Hex digits of a hash that stands in a file or a message to be compared, not to be proof."""


def sha256_hex(content: bytes | str, digits: int = 64) -> str:
    """The first hex digits of the sha256 of some bytes, or of a text as UTF-8."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()[:digits]


def digest64(content: bytes | str) -> int:
    """64 bits of a hash, to tell texts apart in memory or to draw by them."""
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, 64 hex digits; raises `OSError` where it cannot be read."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_parts(parts: Iterable[bytes]) -> str:
    """The sha256 of parts one after the other, 16 hex digits; they are not held together."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:SHORT]


def sha256_of_hashes(hashes: Iterable[tuple[str, str]]) -> str:
    """One hash of several files by their (name, sha256), 16 hex digits; `""` where a name is not to
    count."""
    return sha256_of_parts(name.encode() + bytes.fromhex(sha256) for name, sha256 in hashes)


def hashed_files(folder: Path, files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """`{"model.safetensors": {"sha256": "9f86...", "size": 4096}}`: these files of a folder by
    relative name; a link counts as what it leads to."""
    return {
        file.relative_to(folder).as_posix(): {
            "sha256": sha256_of(file),
            "size": file.stat().st_size,
        }
        for file in files
    }


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader finds the old content or the new, never a part, and so that
    it outlives a power cut; a text is written as UTF-8."""
    with writing(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON that a person can read, whole or not at all."""
    write_whole(path, json.dumps(value, indent=1) + "\n")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSONL, whole or not at all; they are not held in memory together."""
    with writing(path) as stream:
        for row in rows:
            stream.write(json.dumps(row).encode() + b"\n")


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A stream whose bytes become `path` when the block ends; nothing where the block raises.

    A link stays a link to what is written; a device (`/dev/null`) or a pipe is written straight.
    Folders above it that are missing are made.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        with path.open("wb") as stream:
            yield stream
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            yield stream
        place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing_folder(folder: Path, *, replace: bool = True) -> Iterator[Path]:
    """An empty temporary folder that becomes `folder` when the block ends, in the place of what
    stood there; where the block raises, what stood there stays. Without `replace`, raises `OSError`
    where a folder stands there that is not empty."""
    put_back(folder)
    temporary = folder.with_name(f".{folder.name}.tmp")
    remove(temporary)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        (publish if replace else place)(temporary, folder)
    finally:
        remove(temporary)


def publish(temporary: Path, folder: Path) -> None:
    """Put a folder in the place of another, or where there is none: flushed, renamed, and the
    rename flushed. The old one is renamed before it is deleted: nobody ever reads half of it, and
    after a kill between the two renames `put_back` finds it."""
    _flush_all(temporary)
    put_back(folder)
    if folder.exists():
        move(folder, _before(folder))
    move(temporary, folder)
    remove(_before(folder))


def put_back(folder: Path) -> None:
    """Undo a `publish` that was killed between its two renames; where it was killed after them,
    delete the old folder."""
    before = _before(folder)
    if before.exists() and not folder.exists():
        move(before, folder)
    remove(before)


def _before(folder: Path) -> Path:
    """Where the old folder stands while a new one takes its place."""
    return folder.with_name(f".{folder.name}{BEFORE}")


def place(temporary: Path, path: Path) -> None:
    """Flush a file, or a folder with all that is in it, rename it and flush the rename.

    Replaces a file; raises `OSError` where a folder would replace one that is not empty.
    """
    _flush_all(temporary)
    move(temporary, path)


def move(old: Path, new: Path) -> None:
    """Rename what is on the disk already, and flush the rename."""
    os.replace(old, new)
    flush(new.parent)
    if old.parent != new.parent:
        flush(old.parent)


def point(link: Path, name: str) -> None:
    """Make the symlink `link` lead to `name`, or move it there in one stroke."""
    temporary = link.with_name(f".{link.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(name)
    move(temporary, link)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file and wait until it is on the disk."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def adding(path: Path) -> Iterator[IO[bytes]]:
    """A file to which several processes add, held by this one until the block ends: nobody else
    reads or adds meanwhile by this module. What is written goes to its end, and is on the disk when
    the block ends. The file and folders above it are made where they are missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def not_added_to(path: Path) -> Iterator[IO[bytes]]:
    """A file that is read while no process is `adding` to it."""
    with path.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        yield stream


def copy_hashed(source: IO[bytes], target: Path | None) -> str:
    """The sha256 of a stream, 64 hex digits, copied to `target` on the way where there is one."""
    digest = hashlib.sha256()
    with open(target or os.devnull, "wb") as copy:
        while block := source.read(1 << 20):
            digest.update(block)
            copy.write(block)
    return digest.hexdigest()


def flush(path: Path) -> None:
    """Wait until a file's bytes or a folder's entries are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_all(path: Path) -> None:
    for file in path.rglob("*"):
        if file.is_file():
            file.chmod(0o644)  # safetensors writes for its owner alone
        flush(file)
    flush(path)


@contextmanager
def temporary_space() -> Iterator[None]:
    """Writing to a temporary file: raises `OutputError` where there is no room for it."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"the temporary folder {tempfile.gettempdir()} takes no more: {error.strerror}",
            fix="set TMPDIR to a folder with more space",
        ) from None


def sweep(folder: Path) -> None:
    """Undo what interrupted writes left: hidden files and folders that end in `.tmp` are removed,
    folders that were to be replaced are put back."""
    for old in folder.glob(f".*{BEFORE}"):
        put_back(folder / old.name[1:].removesuffix(BEFORE))
    for rubbish in folder.glob(".*.tmp"):
        remove(rubbish)


def remove(path: Path) -> None:
    """Delete a file, a link or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for one run; raises `OutputError` naming the process and host that hold it.

    The kernel holds the lock for the process: it goes when the process does, however it ends, so
    that a killed run never blocks. Other machines see it where the file system passes locks on
    (NFS 4, Lustre with `flock`); on one that does not, two machines are not kept apart.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OutputError("this is a file, and a folder is wanted", where=str(folder),
                          fix="choose another name") from None  # fmt: skip
    except OSError as error:
        raise OutputError(f"no folder can be made here: {error.strerror}", where=str(folder),
                          fix="choose another place") from None  # fmt: skip
    with _holding(folder / LOCK, folder, WORKS):
        yield


@contextmanager
def locked_beside(output: Path) -> Iterator[None]:
    """Hold a file or folder that is to be written, as `locked` does, by a file beside it."""
    with _holding(output.with_name(f".{output.name}{LOCK}"), output, "another process writes this"):
        yield


@contextmanager
def _holding(path: Path, where: Path, said: str) -> Iterator[None]:
    handle = _take(path, where, said)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "started": started}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(owner).encode(), 0)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # still held: who waits for it finds that it is gone
        os.close(handle)


def refuse_locked(folder: Path) -> None:
    """Raise `OutputError` if a run is under way in this folder."""
    path = folder / LOCK
    if path.is_file():
        os.close(_take(path, folder, WORKS))


def _take(path: Path, where: Path, said: str) -> int:
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(f"nothing can be written here: {error.strerror}", where=str(where),
                              fix="choose another place") from None  # fmt: skip
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(os.pread(handle, 1000, 0))
            os.close(handle)
            raise OutputError(
                f"{said}: {owner}",
                where=str(where),
                fix="wait for it or stop it, or choose another folder",
            ) from None
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            return handle
        os.close(handle)


def _owner(said: bytes) -> str:
    """`process 4242 on host box, since 2026-01-02T03:04:05+00:00`; it may not have said yet."""
    try:
        owner = json.loads(said)
        return f"process {owner['pid']} on host {owner['host']}, since {owner['started']}"
    except (ValueError, KeyError, TypeError):
        return "a process that has just begun"


def read_text(path: Path, refusal: type[UsageError], *, limit: int = READ_BYTES) -> str:
    """The UTF-8 text of a regular file of at most `limit` bytes, without a byte-order mark.

    No pipe is waited for, no device read for ever: raises `refusal` for a folder, a pipe or a
    device, and for bytes that are no such text.
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
