"""The log: what was acknowledged is there once, whatever happens to disk and process."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from strop.errors import UsageError
from strop.recipe.serve import TrafficRecipe
from strop.serve.errors import RefusedError
from strop.serve.traffic.log import TrafficLog
from tests.support.serving import Serving, recipe_of, rows, serving


@contextmanager
def log_in(folder: Path, **options: Any) -> Iterator[TrafficLog]:
    log = TrafficLog(TrafficRecipe(folder=str(folder), **options))
    try:
        yield log
    finally:
        log.close()


def exchange(number: int, words: str = "x = 3") -> dict[str, Any]:
    return {"id": f"r{number}", "messages": [{"role": "user", "content": words}], "answer": words,
            "token_ids": [[1, 2]], "caller": "app", "session": f"s{number}"}  # fmt: skip


def told(log: TrafficLog, *said: dict[str, Any]) -> list[bool]:
    async def all_at_once() -> list[bool]:
        return list(await asyncio.gather(*(log.feedback(one) for one in said)))

    return asyncio.run(all_at_once())


def test_what_is_said_twice_is_kept_once(tmp_path: Path) -> None:
    with log_in(tmp_path) as log:
        for number in range(50):
            log.exchange(exchange(number))
        said = [{"id": f"r{n % 50}", "label": True, "time": str(n)} for n in range(200)]
        told(log, *said)
        assert told(log, {"id": "r1", "label": True}, {"id": "r1", "label": False}) == [False, True]
    kept = rows(tmp_path)
    assert sum("messages" in row for row in kept) == 50
    assert sorted(row["id"] for row in kept if row.get("label") is True) == sorted(
        f"r{n}" for n in range(50)
    )
    with log_in(tmp_path) as again:  # known after a restart, too
        assert told(again, {"id": "r1", "label": True}) == [False]


def test_a_line_that_was_cut_by_a_kill_is_taken_off(tmp_path: Path) -> None:
    with log_in(tmp_path) as log:
        log.exchange(exchange(1))
        told(log, {"id": "r1", "label": True})
    (file,) = tmp_path.glob("traffic-*.jsonl")
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"id": "r2", "mess')
    with log_in(tmp_path) as again:
        assert again.answer("r1") is not None
        assert told(again, {"id": "r1", "label": True}) == [False]
    assert file.read_bytes() == whole


def test_an_index_that_is_lost_or_damaged_is_made_again(tmp_path: Path) -> None:
    with log_in(tmp_path) as log:
        log.exchange(exchange(1))
        told(log, {"id": "r1", "label": True})
    for damage in (b"", b"no database"):
        for file in tmp_path.glob("index.db*"):
            file.unlink()
        (tmp_path / "index.db").write_bytes(damage)
        with log_in(tmp_path) as again:
            known = again.answer("r1")
            assert known is not None
            assert (known.caller, known.session) == ("app", "s1")
            assert told(again, {"id": "r1", "label": True}) == [False]


def test_a_full_disk_refuses_feedback_and_loses_nothing_that_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with log_in(tmp_path) as log:
        log.exchange(exchange(1))
        told(log, {"id": "r1", "label": True})
        sync = os.fsync

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        log.exchange(exchange(2))
        with pytest.raises(RefusedError) as refused:
            told(log, {"id": "r1", "label": False})
        assert refused.value.status == 503
        assert "No space left" in log.problem
        assert log.lost == 1
        monkeypatch.setattr(os, "fsync", sync)
        assert told(log, {"id": "r1", "label": False}) == [True]  # sent again when there is room
        assert log.problem == ""
    kept = rows(tmp_path)  # every line whole
    assert [row.get("label") for row in kept] == [None, True, False]


def test_personal_data_is_replaced_dropped_or_kept(tmp_path: Path) -> None:
    words = "I am ann@mail.org"
    for policy, left in (("keep", words), ("replace", "I am <EMAIL_1>")):
        with log_in(tmp_path / policy, personal_data=policy) as log:
            log.exchange(exchange(1, words))
            log.exchange(exchange(2))
        first, second = rows(tmp_path / policy)
        assert (first["answer"], first["messages"][0]["content"]) == (left, left)
        assert ("token_ids" in first) == (policy == "keep")  # they would spell it
        assert "token_ids" in second
    with log_in(tmp_path / "drop", personal_data="drop") as log:
        log.exchange(exchange(1, words))
        log.exchange(exchange(2))
        told(log, {"id": "r2", "label": False, "edit": words})
    exchanged, said = rows(tmp_path / "drop")
    assert exchanged["id"] == "r2"
    assert said["label"] is False  # the thumb stays, the words go
    assert "edit" not in said


def test_files_are_rotated_and_old_ones_deleted(tmp_path: Path) -> None:
    with log_in(tmp_path, file_bytes=4096, flush_seconds=0) as log:
        for number in range(100):
            log.exchange(exchange(number))
            told(log, {"id": f"r{number}", "label": True})
    files = sorted(tmp_path.glob("traffic-*.jsonl"))
    assert len(files) > 3
    assert all(file.stat().st_size < 6000 for file in files)
    assert len(rows(tmp_path)) == 200
    for file in files[:2]:
        os.utime(file, (0, 0))
    gone = {row["id"] for file in files[:2] for row in rows_of(file) if "messages" in row}
    with log_in(tmp_path, days=30) as log:
        assert sorted(tmp_path.glob("traffic-*.jsonl")) == files[2:]
        assert all(log.answer(one) is None for one in gone)
        assert log.answer("r99") is not None


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_serving_goes_on_and_health_is_degraded(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(recipe_of(model_folder, traffic={"folder": str(tmp_path)})) as server:
        mine = server.chat()
        assert feedback(server, mine["id"]) == 200  # and so the answer is on the disk, too
        sync = os.fsync

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        assert feedback(server, mine["id"], "up") == 503
        assert server.get("/health").json()["status"] == "degraded"
        lost = server.chat()
        assert feedback(server, lost["id"]) == 503
        monkeypatch.setattr(os, "fsync", sync)
        assert feedback(server, mine["id"], "up") == 200
        assert server.get("/health").json() == {"status": "ok"}
        assert feedback(server, lost["id"]) == 404


def feedback(server: Serving, id_: str, thumb: str = "down") -> int:
    return server.post("/v1/feedback", {"id": id_, "thumb": thumb}).status_code


def test_of_many_who_say_the_same_at_once_one_is_new(tmp_path: Path) -> None:
    with log_in(tmp_path, flush_seconds=0.2) as log:
        log.exchange(exchange(1))
        assert (
            sum(told(log, *[{"id": "r1", "label": True, "time": str(n)} for n in range(50)])) == 1
        )


def test_who_waits_no_longer_takes_nothing_down(tmp_path: Path) -> None:
    async def gone(log: TrafficLog) -> None:
        one = asyncio.ensure_future(log.feedback({"id": "r1", "label": True}))
        await asyncio.sleep(0.01)
        one.cancel()
        await asyncio.gather(one, return_exceptions=True)

    with log_in(tmp_path, flush_seconds=0.1) as log:
        log.exchange(exchange(1))
        asyncio.run(gone(log))
        assert told(log, {"id": "r1", "label": False}) == [True]
    assert [row.get("label") for row in rows(tmp_path)] == [None, True, False]


def test_a_row_that_cannot_be_looked_through_is_lost_alone(tmp_path: Path) -> None:
    deep: Any = []
    for _ in range(3000):
        deep = [deep]
    with log_in(tmp_path) as log:
        log.exchange(exchange(1) | {"tools": deep})
        log.exchange(exchange(2))
        assert told(log, {"id": "r2", "label": True}) == [True]
        assert log.lost == 1
        assert log.answer("r1") is None
    assert [row["id"] for row in rows(tmp_path)] == ["r2", "r2"]


def test_an_index_that_is_damaged_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with log_in(tmp_path) as log:
        log.exchange(exchange(1))
        told(log, {"id": "r1", "label": True})

        def damaged(*_: Any) -> Any:
            raise sqlite3.DatabaseError("database disk image is malformed")

        with monkeypatch.context() as patched:
            patched.setattr(log.index, "answer", damaged)
            with pytest.raises(RefusedError) as refused:
                log.answer("r1")
        assert refused.value.status == 503
        log.index._db.execute("DELETE FROM answers")
        log.exchange(exchange(2))
        told(log, {"id": "r2", "label": True})
        assert log.answer("r1") is not None
        assert told(log, {"id": "r1", "label": True}) == [False]


def test_a_change_of_the_index_that_fails_leaves_none_open(tmp_path: Path) -> None:
    with log_in(tmp_path) as log:
        log.exchange(exchange(1))
        told(log, {"id": "r1", "label": True})
        with pytest.raises(KeyError):
            log.index.add("traffic-000009-20260102.jsonl", [exchange(5), {"messages": []}], 9)
        assert log.index.answer("r5") is None
        log.exchange(exchange(2))
        told(log, {"id": "r2", "label": True})
        assert log.index.answer("r2") is not None


def test_a_damaged_page_of_the_index_is_found_at_the_start(tmp_path: Path) -> None:
    with log_in(tmp_path) as log:
        for number in range(300):
            log.exchange(exchange(number))
        told(log, {"id": "r1", "label": True})
    path = tmp_path / "index.db"
    whole = bytearray(path.read_bytes())
    for start in range(4096, len(whole), 4096):
        whole[start : start + 200] = b"x" * 200
    path.write_bytes(whole)
    with log_in(tmp_path) as again:
        assert again.answer("r299") is not None
        assert told(again, {"id": "r1", "label": True}) == [False]


def test_other_files_are_none_of_the_logs_and_a_damaged_line_is_told(tmp_path: Path) -> None:
    (tmp_path / "traffic-export.jsonl").write_text("no log\n")
    with log_in(tmp_path) as log:
        log.exchange(exchange(1))
        told(log, {"id": "r1", "label": True})
    (file,) = tmp_path.glob("traffic-0*.jsonl")
    file.write_text("no row\n" + file.read_text())
    (tmp_path / "index.db").unlink()
    with pytest.raises(UsageError, match="no row") as refused:
        TrafficLog(TrafficRecipe(folder=str(tmp_path)))
    assert str(file) in str(refused.value)
