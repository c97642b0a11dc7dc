"""What uses up the machine or cheats does not pass, and nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from strop.errors import SandboxError
from strop.sandbox import forkserver, referee, tiers
from strop.sandbox.asked import CandidateError
from strop.sandbox.client import Sandbox
from strop.sandbox.confine import landlock
from strop.sandbox.confine.jail import MOST_WAITING
from strop.sandbox.workers import Workers
from tests.support.sandboxes import (
    QUICK,
    SECRET,
    SHORT,
    children,
    folder_of,
    has_ended,
    is_gone,
    judge,
    nothing_stays,
    request,
    score,
    wait_for,
)

needs_landlock = pytest.mark.skipif(
    landlock.version() == 0, reason="this kernel has no Landlock: no candidate is run on it"
)


LINK = """
import json, os, struct, sys
def forge(message):
    packed = message if isinstance(message, bytes) else json.dumps(message).encode()
    for fd in range(3, 64):
        try:
            os.write(fd, struct.pack(">I", len(packed)) + packed)
        except OSError:
            pass
"""


CONTAINED = {
    # using up
    "memory": "def f(x): return len(bytearray(10**10))",
    "memory bit by bit": "def f(x):\n kept = []\n while True: kept.append(bytearray(10**6))",
    "recursion": "def f(x): return f(x + 1)",
    "recursion without limit": "import sys; sys.setrecursionlimit(10**9)\ndef f(x): return f(x)",
    "spin": "def f(x):\n while True: pass",
    "spin while loading": "while True: pass",
    "sleep": "import time\ndef f(x): time.sleep(60)",
    "a thread hangs": (
        "import threading\ndef f(x):\n t = threading.Thread(target=threading.Event().wait)\n"
        " t.start(); t.join()"
    ),
    "threads": (
        "import threading, time\nthreading.stack_size(32768)\ndef f(x):\n while True:\n"
        "  threading.Thread(target=time.sleep, args=(60,)).start()"
    ),
    "a big number": "def f(x): return 9 ** 9 ** 9",
    "a bad pattern": "import re\ndef f(x): return re.match('(a+)+$', 'a' * 60 + 'b')",
    "disk": "def f(x):\n for n in range(99): open(f'{n}', 'wb').write(bytes(2**19))\n"
            " import time; time.sleep(60)",
    "one big file": "def f(x):\n with open('big', 'wb') as big:\n"
                    "  while True: big.write(bytes(2**20))",
    "a hole for a file": "import os\ndef f(x):\n os.ftruncate(os.open('h', 66, 384), 2**40)",
    "many files": "import time\ndef f(x):\n for n in range(5000): open(f'{n}', 'w').close()\n"
                  " time.sleep(60)",
    "a deep tree": "import os, time\ndef f(x):\n for _ in range(5000): os.mkdir('d'); os.chdir('d')"
                   "\n time.sleep(60)",
    "a deep tree with files": "import os\ndef f(x):\n for _ in range(1500):\n"
                  "  open('g', 'w').close(); os.mkdir('dd' * 60); os.chdir('dd' * 60)",
    "odd names": "import os\ndef f(x):\n for n in range(1, 256):\n"
                 "  if n not in (46, 47):\n"
                 "   os.mkdir(bytes([n])); open(bytes([n, 47, n]), 'w').close()",
    "shut folders": "import os\nos.umask(0o777)\ndef f(x):\n os.mkdir('a', 0); os.mkdir('b', 0o300)"
                    "\n open('c', 'w').close()",
    "flood stdout": "def f(x):\n while True: print('x' * 10**6)",
    "flood stderr": "import sys\ndef f(x):\n while True: print('x' * 10**6, file=sys.stderr)",
    "huge value": "def f(x): return 'x' * (17 * 2**20)",
    "deep value": "def f(x):\n v = []\n for _ in range(10**5): v = [v]\n return v",
    "a value in itself": "def f(x):\n v = []; v.append(v)\n return v",
    "endless generator": "def f(x):\n while True: yield 42",
    "endless list": "class L(list):\n def __iter__(self):\n  while True: yield 42\n"
                    "def f(x): return L()",
    "ignore signals": "import signal\nfor n in range(1, 65):\n"
                      " try: signal.signal(n, signal.SIG_IGN)\n"
                      " except (OSError, ValueError): pass\ndef f(x):\n while True: pass",
    "catch the CPU limit": "import signal\nsignal.signal(signal.SIGXCPU, lambda *a: None)\n"
                           "def f(x):\n while True: pass",
    "stop itself": "import signal, threading\ndef f(x):\n"
                   " signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)",
    "crash": "import ctypes\ndef f(x): ctypes.string_at(0)",
    # cheating
    "pickle": "import os\nclass P:\n def __reduce__(self): return (os.system, ('true',))\n"
              "def f(x): return P()",
    "equal to all": "class E:\n def __eq__(self, other): return True\ndef f(x): return E()",
    "a number equal to all": "class E(int):\n def __eq__(self, other): return True\n"
                             " __hash__ = int.__hash__\ndef f(x): return E(1)",
    "a text equal to all": "class E(str):\n def __eq__(self, other): return True\n"
                           "def f(x): return E('42')",
    "exit": "import sys\ndef f(x): sys.exit(0)",
    "exit while loading": "import sys; sys.exit(0)",
    "hard exit": "import os\ndef f(x): os._exit(0)",
    "hard exit while loading": "import os; os._exit(0)",
    "exit as if not shut in": "import os; os._exit(125)",
    "any exit status": "import os\ndef f(x): os._exit(1)",
    "no assertions": "import builtins\ndef f(x):\n builtins.AssertionError = ValueError\n"
                     " builtins.print = builtins.len = builtins.bool = lambda *a: True\n"
                     " return True",
    "no errors": "import builtins\nfor n in list(vars(builtins)):\n"
                 " if 'Error' in n: delattr(builtins, n)\ndef f(x): return 1",
    "raise to be believed": "def f(x): raise AssertionError('42')",
    "stop the iteration": "def f(x): raise StopIteration(42)",
    "interrupt": "def f(x): raise KeyboardInterrupt",
    "another json": "import json\ndef f(x):\n"
                    " json.dumps = lambda *a, **k: '{\"dict\": [[\"passed\", 1]]}'\n return 1",
    "another codec": "import strop.sandbox.values.codec as c\ndef f(x):\n"
                     " c.to_bytes = lambda v: b'{\"passed\": 1, \"total\": 1}'\n return 1",
    "no exit": "import os, sys\nos._exit = sys.exit = lambda *a: None\n"
               "def f(x): os.closerange(3, 64); return 1",
    "forged rubbish": LINK + "def f(x): forge(b'rubbish'); return 1",
    "forged finding": LINK + "def f(x): forge({'passed': 1, 'total': 1}); return 1",
    "forged report": LINK + "def f(x): forge({'status': 0, 'killed': ''}); return 1",
    "forged pickle": LINK + "import pickle\ndef f(x): forge(pickle.dumps(print)); return 1",
    "forged deep": LINK + "def f(x): forge(b'[' * 10**6); return 1",
    "forged tag": LINK + "def f(x): forge({'complex': [10**400, 0]}); return 1",
    "forged length": LINK + "def f(x):\n for fd in range(3, 64):\n"
                             "  try: os.write(fd, bytes([255] * 9))\n  except OSError: pass",
    "forged while loading": LINK + "forge(b'rubbish')\ndef f(x): return 1",
    "half a message": LINK + "def f(x):\n for fd in range(3, 64):\n  try: os.write(fd, bytes(2))\n"
                             "  except OSError: pass\n os._exit(0)",
    "close the link": "import os\ndef f(x): os.closerange(0, 64); return 42",
    "write to all": "import os\ndef f(x):\n for fd in range(21):\n"
                    "  try: os.write(fd, b'x' * 100)\n  except OSError: pass\n return 1",
    "an equal set": LINK + "def f(x):\n"
                    " forge({'dict': [['value', {'set': [{'int': hex(n * (2**61 - 1))}"
                    " for n in range(2 * 10**5)]}]]})",
}  # fmt: skip
"""Code that is judged by `assert f(21) == 42` and must not pass."""


CLAIM = f"wanted = 42  # {SECRET}\nassert f(21) == wanted"


@pytest.mark.parametrize("name", CONTAINED)
def test_what_uses_up_or_cheats_does_not_pass(
    name: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(referee, "SPARE_SECONDS", 1.0)
    with nothing_stays(sandbox):
        began = time.monotonic()
        finding = judge(sandbox, CONTAINED[name], CLAIM, limits=asdict(QUICK))
        assert score(finding) == (0, 1)
        # limits are CPU time, or time in which it did not wait for a CPU
        most = MOST_WAITING * (QUICK.wall + referee.SPARE_SECONDS + 1)
        assert time.monotonic() - began < most


PROGRAMS = {
    "flood stdout": "while True: print('x' * 1000)",
    "flood stderr": "import sys\nwhile True: print('x' * 1000, file=sys.stderr)",
    "spin": "print(42)\nwhile True: pass",
    "close and sleep": "import os, time\nprint(42, flush=True)\nos.closerange(0, 64)\n"
    "time.sleep(60)",
    "fails after it is right": "print(42, flush=True); raise SystemExit(3)",
    "crash after it is right": "import os\nprint(42, flush=True)\nos._exit(125)",
    "wrong": "print(41)",
    "forge": LINK + "forge({'passed': 1, 'total': 1}); print(41)",
    "read on": "import os\nos.lseek(0, 0, 2); os.write(0, b'42'); print(41)",
    "cannot be sent": "#" * (17 * 2**20) + "\nprint(42)",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_cheats_does_not_pass(name: str, sandbox: Sandbox) -> None:
    with nothing_stays(sandbox):
        tests = [{"input": "21\n", "output": "42\n"}]
        finding = judge(sandbox, PROGRAMS[name], tests, limits=asdict(QUICK))
        assert score(finding) == (0, 1)


def test_the_next_candidate_sees_nothing_of_the_one_before(any_tier: str) -> None:
    leave = "import os\nopen('left', 'w').write('42'); os.mkdir('d'); open('d/left', 'w').close()"
    look = "import os\ndef look(): return os.listdir('.'), vars(os).get('left')"
    with tiers.start(any_tier) as sandbox:  # type: ignore[arg-type]
        with sandbox.execute(leave + "\nos.left = 1" + "\n" + look, SHORT) as candidate:
            names, mark = candidate.call("look", [], {})
            assert (sorted(names), mark) == (["d", "left"], 1), "the attempt itself works"
        with sandbox.execute(look, SHORT) as candidate:
            assert candidate.call("look", [], {}) == ([], None)


def test_a_candidate_ends_with_a_killed_fork_server(tmp_path: Path) -> None:
    if landlock.version() == 0:
        pytest.skip("this kernel has no Landlock")
    sandbox = tiers.start("landlock")
    code = "import os, time\ndef f(): return os.getcwd()\ndef wait(): time.sleep(60)"
    with contextlib.ExitStack() as stack:
        candidate = stack.enter_context(sandbox.execute(code, SHORT))
        folder = Path(candidate.call("f", [], {}))
        (child,) = children(sandbox.pid)
        threading.Timer(0.2, os.kill, (sandbox.pid, signal.SIGKILL)).start()
        with pytest.raises(CandidateError, match="ended before it answered"):
            candidate.call("wait", [], {})
        with pytest.raises(SandboxError, match="the fork server ended"):
            stack.close()
    assert is_gone(child)
    folder.rmdir()  # nobody was left to do it


def test_closing_a_sandbox_leaves_no_process_and_no_folder(any_tier: str) -> None:
    sandbox = tiers.start(any_tier)  # type: ignore[arg-type]
    folder, server = folder_of(sandbox), sandbox.pid
    sandbox.close()
    sandbox.close()
    assert is_gone(server)
    assert not folder.exists()


def test_a_killed_referee_takes_its_candidate_with_it() -> None:
    if landlock.version() == 0:
        pytest.skip("this kernel has no Landlock")
    workers = Workers([sys.executable, "-m", "strop.sandbox.referee", "landlock"], count=1)
    wait = request("import time\ndef f(x): time.sleep(60)", "assert f(1)")
    wait["limits"]["seconds"] = 50.0
    before = set(folders())
    (reply,) = workers.ask([wait], 1.0)
    assert reply.failed == "no answer within 1 s"
    (reply,) = workers.ask([request("def f(x): return x", "assert f(1)")], 20.0)
    assert reply.answer["passed"] == 1
    workers.close()
    assert wait_for(lambda: set(folders()) <= before), "the folders are gone with the servers"


def folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("strop-candidate-*"))


@needs_landlock
def test_thousands_of_files_that_nobody_saw_in_time_are_removed(tmp_path: Path) -> None:
    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(1050):  # beyond the longest path and the deepest recursion
            os.mkdir("deep")
            os.chdir("deep")
    finally:
        os.chdir(here)
    assert forkserver.holds_too_much(tmp_path, 10**9)
    for number in range(1000):
        (tmp_path / f"{number}").touch()
    (tmp_path / "shut").mkdir(0)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "inner").mkdir(0)
    (tmp_path / "half").chmod(0o300)
    forkserver.empty(tmp_path)
    assert os.listdir(tmp_path) == []


@needs_landlock
def test_a_hidden_folder_counts_as_too_much(tmp_path: Path) -> None:
    assert not forkserver.holds_too_much(tmp_path, 100)
    (tmp_path / "file").write_bytes(bytes(101))
    assert forkserver.holds_too_much(tmp_path, 100)
    assert not forkserver.holds_too_much(tmp_path, 10**6)
    assert not forkserver.holds_too_much(tmp_path, 10**6)
    for number in range(forkserver.MOST_FILES):
        (tmp_path / f"{number}").touch()
    assert forkserver.holds_too_much(tmp_path, 10**6), "one file too many"


SEARCH = """
import gc, os, sys
def seen():
    word = "-".join(["the", "expected", "value", "4711"])
    frame, frames = sys._getframe().f_back, []
    while frame:
        frames.append(repr(frame.f_locals))
        frame = frame.f_back
    things = [*gc.get_objects(), *sys.modules.values(), dict(os.environ), sys.argv]
    texts = [thing for thing in things if isinstance(thing, (dict, list, tuple, str))]
    return word in repr(texts) or any(word in text for text in frames)
"""


def test_a_candidate_finds_no_test_in_its_memory(sandbox: Sandbox) -> None:
    tests = f"wanted = {SECRET!r}\nassert seen() is False"
    assert score(judge(sandbox, SEARCH, tests)) == (1, 1)
    found = judge(sandbox, f"{SEARCH}\nheld = {SECRET!r}", tests)
    assert score(found) == (0, 1), "the search finds what is there"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("while True: pass", "more than 0.8 s of CPU time"),
        ("import threading\nfor _ in range(2): threading.Thread(target=exec, args=('while 1: 1',))"
         ".start()", "more than 0.8 s of CPU time"),
        ("import time; time.sleep(9)", "longer than 2 s"),
        ("while True: print('x' * 999)", "printed more than 65536 bytes"),
        ("import time\nfor n in range(9): open(str(n), 'wb').write(bytes(2**19))\ntime.sleep(9)",
         "wrote more than 1048576 bytes or 1000 files"),
        ("import time\nfor n in range(1001): open(str(n), 'wb')\ntime.sleep(9)", "1000 files"),
        ("import os, time\nfor n in range(1500): os.mkdir('d'); os.chdir('d')\ntime.sleep(9)",
         "1000 files"),
        ("import threading, time\nthreading.stack_size(32768)\nwhile True:\n"
         " threading.Thread(target=time.sleep, args=(9,)).start()", "more than 64 threads"),
    ],
)  # fmt: skip
def test_what_uses_too_much_is_killed_for_that_reason(
    code: str, reason: str, sandbox: Sandbox
) -> None:
    with nothing_stays(sandbox):
        is_short = "longer" in reason or "CPU" in reason
        patient = replace(
            QUICK, seconds=0.8 if is_short else 8.0, wall=2.0 if "longer" in reason else 20.0
        )
        assert reason in sandbox.run_program(code, "", patient).killed


def test_a_kill_by_the_kernel_is_told_as_its_limit_when_the_watcher_cannot_look(
    sandbox: Sandbox,
) -> None:
    killed = []
    spin = threading.Thread(
        target=lambda: killed.append(
            sandbox.run_program("while True: pass", "", replace(QUICK, wall=20.0)).killed
        )
    )
    with nothing_stays(sandbox):
        spin.start()
        assert wait_for(lambda: children(sandbox.pid))
        (candidate,) = children(sandbox.pid)
        os.kill(sandbox.pid, signal.SIGSTOP)
        assert wait_for(lambda: has_ended(candidate), 20.0)
        os.kill(sandbox.pid, signal.SIGCONT)
        spin.join()
        assert killed == ["it used more than 0.8 s of CPU time"]


def test_a_candidate_that_kills_itself_is_not_told_as_a_limit(sandbox: Sandbox) -> None:
    code = "import signal, threading\nsignal.pthread_kill(threading.get_ident(), signal.SIGKILL)"
    ended = sandbox.run_program(code, "", QUICK)
    assert (ended.status, ended.killed) == (-signal.SIGKILL, "")


def test_limits_of_the_kernel_hold_inside(sandbox: Sandbox) -> None:
    code = """
import threading
def grow(n):
    return len(bytearray(n))
def write(n):
    with open("f", "wb") as f:
        f.write(bytes(n))
        f.flush()
    return n
def threads(n):
    started = [threading.Thread(target=print) for _ in range(n)]
    for thread in started: thread.start()
    for thread in started: thread.join()
    return n
"""
    with sandbox.execute(code, QUICK) as candidate:
        assert candidate.call("grow", [2**26], {}) == 2**26
        assert candidate.call("write", [2**19], {}) == 2**19
        assert candidate.call("threads", [8], {}) == 8
        with pytest.raises(MemoryError):
            candidate.call("grow", [2**28], {})
        with pytest.raises(OSError, match="File too large"):
            candidate.call("write", [2**21], {})
