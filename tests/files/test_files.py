"""How bytes reach a disk: hashes by hand, whole or not there at a kill, flushed before renamed."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import shutil
import signal
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from strop import files
from strop.files import (
    append_line,
    copy_hashed,
    hashed_files,
    place,
    point,
    publish,
    sha256_hex,
    sha256_of,
    sha256_of_hashes,
    sweep,
    write_json,
    write_rows,
    write_whole,
    writing,
    writing_folder,
)
from strop.tracking.sinks import SINKS, Sinks, TrackedRun
from tests.support import ROOT

SRC = ROOT / "src"

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""sha256 of "abc": FIPS 180-2, appendix B.1."""


class TestHashes:
    def test_of_bytes_a_text_and_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "abc").write_bytes(b"abc")
        assert sha256_hex(b"abc") == sha256_hex("abc") == sha256_of(tmp_path / "abc") == ABC
        assert sha256_hex("abc", 12) == ABC[:12]

    def test_of_several_files(self) -> None:
        by_hand = hashlib.sha256(b"a" + bytes.fromhex(ABC) + bytes.fromhex(ABC)).hexdigest()[:16]
        assert sha256_of_hashes([("a", ABC), ("", ABC)]) == by_hand
        assert sha256_of_hashes([("", ABC), ("a", ABC)]) != by_hand

    def test_of_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub/abc").write_bytes(b"abc")
        found = hashed_files(tmp_path, [tmp_path / "sub/abc"])
        assert found == {"sub/abc": {"sha256": ABC, "size": 3}}

    @pytest.mark.parametrize("kept", [True, False])
    def test_of_a_stream_on_its_way(self, kept: bool, tmp_path: Path) -> None:
        target = tmp_path / "copy" if kept else None
        assert copy_hashed(io.BytesIO(b"abc"), target) == ABC
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"abc"] * kept


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the disk is asked for, in order: `["fsync a.tmp", "rename a.tmp -> a", "fsync ."]`."""
    asked: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(handle: int) -> None:
        asked.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{handle}')).name}")
        fsync(handle)

    def noted_replace(old: Path, new: Path) -> None:
        asked.append(f"rename {old.name} -> {new.name}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    return asked


def unique() -> str:
    """What tells the temporary files of processes and threads apart."""
    return f"{os.getpid()}-{threading.get_ident()}"


def flushed_around_rename(temporary: str, name: str, folder: Path) -> list[str]:
    return [f"fsync {temporary}", f"rename {temporary} -> {name}", f"fsync {folder.name}"]


class TestDurability:
    """The bytes are on the disk before the name is, and the name before the call returns."""

    def test_a_file(self, tmp_path: Path, done: list[str]) -> None:
        write_whole(tmp_path / "a", "text")
        assert done == flushed_around_rename(f".a.{unique()}.tmp", "a", tmp_path)

    def test_a_link(self, tmp_path: Path, done: list[str]) -> None:
        point(tmp_path / "latest", "checkpoint-1")
        point(tmp_path / "latest", "checkpoint-2")
        assert os.readlink(tmp_path / "latest") == "checkpoint-2"
        assert done == ["rename .latest.tmp -> latest", f"fsync {tmp_path.name}"] * 2

    def test_a_folder_with_all_that_is_in_it(self, tmp_path: Path, done: list[str]) -> None:
        with writing_folder(tmp_path / "final") as temporary:
            (temporary / "sub").mkdir()
            (temporary / "sub/weights").write_bytes(b"1")
        assert sorted(done[:3]) == ["fsync .final.tmp", "fsync sub", "fsync weights"]
        assert done[3:] == ["rename .final.tmp -> final", f"fsync {tmp_path.name}"]

    def test_a_line(self, tmp_path: Path, done: list[str]) -> None:
        append_line(tmp_path / "log", "one")
        append_line(tmp_path / "log", "two")
        assert (tmp_path / "log").read_text() == "one\ntwo\n"
        assert done == ["fsync log"] * 2

    def test_what_a_tracker_was_told(
        self, tmp_path: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its place is kept before each step that it is told."""

        class Tracker:
            def start(self, run: TrackedRun, known: str | None) -> str:
                return "run-1"

            def step(self, step: int, metrics: object) -> None:
                done.append(f"step {step}")

            def finish(self, done: bool) -> None:
                pass

        monkeypatch.setitem(SINKS, "trackio", Tracker)
        with Sinks(["trackio"], TrackedRun("r", tmp_path / "sinks", {}, {})) as sinks:
            sinks.step(1, {})
        name = f".trackio.json.{unique()}.tmp"
        kept = flushed_around_rename(name, "trackio.json", tmp_path / "sinks")
        assert done == [*kept, *kept, "step 1"]


def killed_in(child: Callable[[], None]) -> None:
    """Run a function in a process that kills itself there."""
    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def kill(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class TestWholeOrNotThere:
    def test_a_kill_in_the_middle_of_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "verdict.json"
        write_whole(path, "old")

        def child() -> None:
            with writing(path) as stream:
                stream.write(b"half of the n")
                stream.flush()
                kill()

        killed_in(child)
        assert path.read_text() == "old"
        assert len(list(tmp_path.iterdir())) == 2, "the half was on the disk, under another name"
        sweep(tmp_path)
        assert list(tmp_path.iterdir()) == [path]

    def test_a_kill_before_a_folder_is_renamed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "eval"
        with writing_folder(folder) as temporary:
            (temporary / "records").write_text("old")

        def child() -> None:
            monkeypatch.setattr(os, "fsync", kill)
            with writing_folder(folder) as temporary:
                (temporary / "records").write_text("new")

        killed_in(child)
        assert (folder / "records").read_text() == "old"
        with writing_folder(folder) as temporary:
            assert list(temporary.iterdir()) == [], "what the killed one left is gone"
            (temporary / "records").write_text("newer")
        assert (folder / "records").read_text() == "newer"
        assert list(tmp_path.iterdir()) == [folder]

    @pytest.mark.parametrize("nth", [1, 2, 3])
    def test_a_kill_between_the_renames_of_publish(
        self, nth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Killed before the first rename, between the two, and after both."""
        folder = tmp_path / "checkpoint-4"
        for said in ("old", "new"):
            (tmp_path / said).mkdir()
            (tmp_path / said / "weights").write_text(said)
        publish(tmp_path / "old", folder)
        replaced = os.replace

        def child() -> None:
            asked = [0]

            def replace(old: Path, new: Path) -> None:
                asked[0] += 1
                if asked[0] == nth:
                    kill()
                replaced(old, new)

            monkeypatch.setattr(os, "replace", replace)
            monkeypatch.setattr(shutil, "rmtree", kill)
            publish(tmp_path / "new", folder)

        killed_in(child)
        assert folder.exists() == (nth != 2)
        kept = "new" if nth == 3 else "old"
        sweep(tmp_path)
        assert (folder / "weights").read_text() == kept
        assert {p.name for p in tmp_path.iterdir()} == {folder.name, *["new"] * (nth != 3)}

    def test_what_a_kill_between_the_renames_left_is_put_back_by_the_next_write(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / ".eval.before").mkdir()
        (tmp_path / ".eval.before/records").write_text("old")
        with pytest.raises(IsADirectoryError), writing_folder(tmp_path / "eval") as temporary:
            temporary.write_text("new")
        assert (tmp_path / "eval/records").read_text() == "old"
        assert [path.name for path in tmp_path.rglob("*")] == ["eval", "records"]

    def test_an_error_in_the_middle(self, tmp_path: Path) -> None:
        write_json(tmp_path / "file", [1])
        with writing_folder(tmp_path / "folder") as temporary:
            (temporary / "a").touch()
        with pytest.raises(TypeError), writing(tmp_path / "file") as stream:
            stream.writelines([b"new", 1])  # type: ignore[list-item]
        with pytest.raises(IsADirectoryError), writing_folder(tmp_path / "folder") as temporary:
            temporary.write_text("new")
        assert (tmp_path / "file").read_text() == "[\n 1\n]\n"
        found = sorted(path.name for path in tmp_path.rglob("*"))
        assert found == ["a", "file", "folder"]

    def test_a_row_that_cannot_be_written_leaves_the_old_ones(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.jsonl"
        write_rows(path, ({"n": n} for n in range(2)))
        with pytest.raises(TypeError):
            write_rows(path, [{"n": 2}, {"n": object()}])
        assert path.read_text() == '{"n": 0}\n{"n": 1}\n'

    def test_a_link_stays_a_link_and_a_pipe_a_pipe(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("file")
        write_whole(tmp_path / "link", "text")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "file").read_text() == "text"
        os.mkfifo(tmp_path / "pipe")
        reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        write_whole(tmp_path / "pipe", "text")
        assert os.read(reader, 10) == b"text"
        os.close(reader)
        assert (tmp_path / "pipe").is_fifo()

    def test_a_folder_that_may_not_be_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "golden").mkdir()
        for said in ("first", "second"):
            with (
                pytest.raises(OSError, match="not empty") if said == "second" else nullcontext(),
                writing_folder(tmp_path / "golden", replace=False) as temporary,
            ):
                (temporary / said).touch()
        assert [path.name for path in tmp_path.rglob("*")] == ["golden", "first"]

    def test_publish_replaces_and_place_does_not(self, tmp_path: Path) -> None:
        for name in ("there", "new", "newer"):
            (tmp_path / name).mkdir()
            (tmp_path / name / name).touch()
        with pytest.raises(OSError, match="not empty"):
            place(tmp_path / "new", tmp_path / "there")
        assert (tmp_path / "there/there").exists()
        publish(tmp_path / "new", tmp_path / "there")
        assert [path.name for path in (tmp_path / "there").iterdir()] == ["new"]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["newer", "there"]


DISK = {"hashlib", "fcntl"}
CALLS = {"os.replace", "os.fsync", "os.fdatasync"}
IN_MEMORY = {"engines/draws.py"}
"""Hashes a key to seed a generator of random numbers: no bytes of a file."""


def disk_in(tree: ast.AST) -> list[str]:
    """What of a module belongs into `files.py`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in DISK]
        elif isinstance(node, ast.ImportFrom) and node.module in {*DISK, "os"}:
            found += [f"{node.module}.{a.name}" for a in node.names if a.name != "PathLike"]
        elif isinstance(node, ast.Attribute) and (
            node.attr == "rename" or ast.unparse(node) in CALLS
        ):
            found.append(ast.unparse(node))
    return found


def test_one_module_knows_how_bytes_reach_a_disk() -> None:
    elsewhere = {}
    for path in sorted((SRC / "strop").rglob("*.py")):
        name = path.relative_to(SRC / "strop").as_posix()
        if path != Path(files.__file__) and name not in IN_MEMORY:
            elsewhere[name] = disk_in(ast.parse(path.read_text()))
    assert {name: found for name, found in elsewhere.items() if found} == {}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import hashlib", ["hashlib"]),
        ("from hashlib import sha256", ["hashlib.sha256"]),
        ("import os\nos.replace(a, b)", ["os.replace"]),
        ("from os import fsync", ["os.fsync"]),
        ("temporary.rename(path)", ["temporary.rename"]),
        ("import os\nos.truncate(a, 0)", []),
    ],
)
def test_that_rule_can_fail(line: str, found: list[str]) -> None:
    assert disk_in(ast.parse(line)) == found


def test_missing_folders_above_a_file_are_made(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b" / "page.html", "x")
    assert (tmp_path / "a" / "b" / "page.html").read_text() == "x"
