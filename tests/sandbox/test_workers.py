"""Workers that fall, hang or babble are restarted, and end with their owner."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strop.sandbox.workers import Reply, Workers
from tests.support.sandboxes import is_gone

WORKER = """
import json, os, sys, time
print("ready", flush=True)
mark = {mark!r}
for line in sys.stdin:
    order = json.loads(line)
    with open(mark, "a") as log: log.write(order["do"] + "\\n")
    if order["do"] == "die once" and open(mark).read().count("die once") == 1: os._exit(1)
    if order["do"] == "die": os._exit(1)
    if order["do"] == "hang": time.sleep(60)
    if order["do"] == "babble": print("no JSON", flush=True); continue
    if order["do"] == "deaf": print("{{}}", flush=True); time.sleep(60)
    time.sleep(order.get("for", 0))
    print(json.dumps([order["do"], os.getpid()]), flush=True)
"""


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.fixture
def workers(mark: Path) -> Iterator[Workers]:
    made = Workers([sys.executable, "-I", "-S", "-c", WORKER.format(mark=str(mark))], count=2)
    yield made
    made.close()


def do(*what: str) -> list[dict[str, Any]]:
    return [{"do": one} for one in what]


def test_a_worker_that_falls_is_restarted_and_asked_once_more(workers: Workers, mark: Path) -> None:
    (reply,) = workers.ask(do("die once"), 10.0)
    assert reply.answer[0] == "die once"
    assert mark.read_text().splitlines() == ["die once"] * 2
    mark.write_text("")
    (reply,) = workers.ask(do("die"), 10.0)
    assert reply == Reply(failed="a worker ended while it judged")
    assert mark.read_text().splitlines() == ["die"] * 2
    assert [r.answer[0] for r in workers.ask(do("a", "b", "c"), 10.0)] == ["a", "b", "c"]


def test_a_worker_that_hangs_is_killed_in_time(workers: Workers, mark: Path) -> None:
    workers.ask(do("warm", "warm"), 10.0)
    began = time.monotonic()
    (reply,) = workers.ask(do("hang"), 0.5)
    assert time.monotonic() - began < 3.0
    assert reply == Reply(failed="no answer within 0.5 s", slow=True)
    assert mark.read_text().count("hang") == 1, "what takes too long is not tried again"
    assert [r.answer[0] for r in workers.ask(do("a", "b"), 10.0)] == ["a", "b"]


def test_a_worker_that_does_not_read_is_killed_in_time(workers: Workers) -> None:
    (first,) = workers.ask([{"do": "deaf"}], 10.0)
    assert first.answer == {}
    began = time.monotonic()
    large = [{"do": "x" * 10**6}] * 2  # far more than a pipe holds; one of them meets the deaf one
    replies = workers.ask(large, 1.0)
    assert time.monotonic() - began < 5.0
    assert "no answer within 1 s" in [reply.failed for reply in replies]
    assert [r.answer[0] for r in workers.ask(do("a", "b"), 10.0)] == ["a", "b"]


def test_a_worker_that_babbles_is_not_believed(workers: Workers) -> None:
    (reply,) = workers.ask(do("babble"), 10.0)
    assert reply == Reply(failed="a worker answered with no JSON")
    assert [r.answer[0] for r in workers.ask(do("a", "b"), 10.0)] == ["a", "b"]


def test_replies_come_in_the_order_of_the_requests(workers: Workers) -> None:
    asked = [{"do": str(n), "for": 0.15 if n % 3 == 0 else 0.0} for n in range(10)]
    replies = workers.ask(asked, 10.0)
    assert [reply.answer[0] for reply in replies] == [str(n) for n in range(10)]
    assert len({reply.answer[1] for reply in replies}) == 2
    assert workers.ask([], 1.0) == []


def test_closed_workers_leave_no_process(workers: Workers) -> None:
    pids = {reply.answer[1] for reply in workers.ask([{"do": "a", "for": 0.2}] * 2, 10.0)}
    assert len(pids) == 2
    workers.close()
    assert all(is_gone(pid) for pid in pids)


PROGRAM = """
import sys, threading, time
from pathlib import Path
from strop.sandbox.workers import Workers

workers = Workers([sys.executable, "-I", "-S", "-c", sys.argv[1]], count=2)
asked = [{"do": "hang"}] * int(sys.argv[3])
threading.Thread(target=workers.ask, args=(asked, 600.0), daemon=True).start()
while not Path(sys.argv[2]).exists():
    time.sleep(0.01)
print("ends", *(worker._process.pid for worker in workers._all if worker._process), flush=True)
"""


@pytest.mark.parametrize("count", [1, 3])
def test_the_end_of_the_program_waits_for_nobody(mark: Path, count: int) -> None:
    """The workers would hang for 60 s, and are given 600."""
    given = [sys.executable, "-c", PROGRAM, WORKER.format(mark=str(mark)), str(mark), str(count)]
    said = subprocess.run(given, capture_output=True, text=True, timeout=45, check=True)
    ends, *pids = said.stdout.split()
    assert ends == "ends"
    assert pids
    assert all(is_gone(int(pid)) for pid in pids)
    assert said.stderr == ""
