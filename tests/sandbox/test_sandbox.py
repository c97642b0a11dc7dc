"""Untrusted code stays inside: every way out is tried, and after each the sandbox still judges."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
from array import array
from collections import ChainMap, Counter, OrderedDict, deque, namedtuple
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as dtime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from types import MappingProxyType, SimpleNamespace
from typing import Any, get_args
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strop.errors import SandboxError
from strop.sandbox import forkserver, landlock, referee, seccomp, suite, tiers
from strop.sandbox.asked import CandidateError
from strop.sandbox.client import Sandbox
from strop.sandbox.jail import MOST_WAITING, Limits
from strop.sandbox.syscalls import AARCH64, ALLOWED, X86_64, Machine
from strop.sandbox.values import codec
from strop.sandbox.workers import Reply, Workers

SHORT = Limits(seconds=2.0, wall=4.0, memory=256 * 2**20, folder=2**20, output=2**16)

Point = namedtuple("Point", "x y")

needs_landlock = pytest.mark.skipif(
    landlock.version() == 0, reason="this kernel has no Landlock: no candidate is run on it"
)


def refusal(tier: str) -> str | None:
    """Why a tier cannot be tested here."""
    if "landlock" in tier and landlock.version() == 0:
        return "this kernel has no Landlock"
    if "bubblewrap" in tier and shutil.which("bwrap") is None:
        return "bubblewrap (bwrap) is not installed"
    if "bubblewrap" in tier and os.system("bwrap --unshare-all --ro-bind / / true 2>/dev/null"):
        return "bubblewrap may make no namespaces here"
    return None


@pytest.fixture(scope="module", params=get_args(tiers.Tier))
def any_tier(request: pytest.FixtureRequest) -> str:
    if reason := refusal(request.param):
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    if landlock.version() == 0:
        pytest.skip("this kernel has no Landlock: no candidate is run on it")
    with tiers.start("landlock") as started:
        yield started


def request(code: str, tests: Any, **more: Any) -> dict[str, Any]:
    plain = {"entry_point": None, "prompt": "", "partial": False, "limits": asdict(SHORT)}
    return {"code": code, "tests": tests} | plain | more


def judge(sandbox: Sandbox, code: str, tests: Any, **more: Any) -> referee.Finding:
    return referee.judge(request(code, tests, **more), sandbox)


def score(finding: referee.Finding) -> tuple[int, int]:
    assert finding.unjudged is None, finding.unjudged
    return finding.passed, finding.total


def still_judges(sandbox: Sandbox) -> None:
    assert score(judge(sandbox, "def add(a, b): return a + b", "assert add(2, 3) == 5")) == (1, 1)
    assert score(judge(sandbox, "def add(a, b): return a - b", "assert add(2, 3) == 5")) == (0, 1)


def children(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def handles(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def folder_of(sandbox: Sandbox) -> Path:
    """The one candidate folder that belongs to this fork server, as a candidate sees it."""
    with sandbox.execute("import os\ndef where(): return os.getcwd()", SHORT) as candidate:
        return Path(candidate.call("where", [], {}))


@contextlib.contextmanager
def nothing_stays(sandbox: Sandbox) -> Iterator[None]:
    """No process, open file or file is left, and the sandbox judges as before."""
    server, folder = sandbox._server.pid, folder_of(sandbox)
    before = handles(server), handles(os.getpid())
    yield
    assert sandbox._server.poll() is None, "the fork server has ended"
    assert os.listdir(folder) == []
    assert children(server) == []
    assert (handles(server), handles(os.getpid())) == before
    still_judges(sandbox)


# --- a candidate's way out: refused attempts ------------------------------------------------------

SECRET = "the-expected-value-4711"

LIBC = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    result = libc.syscall(ctypes.c_long(number), *args)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
"""

# x86-64 numbers, and what they would be on aarch64
NUMBER = {
    "mknod": (133, None), "vfork": (58, None), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "setuid": (105, 146),
    "prctl": (157, 167), "io_uring_setup": (425, 425), "memfd_create": (319, 279),
    "execveat": (322, 281), "bpf": (321, 280), "keyctl": (250, 219), "add_key": (248, 217),
    "socket": (41, 198), "socketpair": (53, 199), "unshare": (272, 97), "setns": (308, 268),
    "mount": (165, 40), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "seccomp": (317, 277),
    "openat2": (437, 437), "shmget": (29, 194), "kcmp": (312, 272), "chroot": (161, 51),
    "open_by_handle_at": (304, 265), "setpriority": (141, 140), "setrlimit": (160, 164),
    "fallocate": (285, 47), "setxattr": (188, 5), "alarm": (37, None), "swapon": (167, 224),
    "reboot": (169, 142), "init_module": (175, 105), "landlock_restrict_self": (446, 446),
}  # fmt: skip

HERE = "aarch64" if os.uname().machine == "aarch64" else "x86_64"


def raw(name: str, *args: object) -> str:
    number = NUMBER[name][HERE == "aarch64"]
    if number is None:
        number = 9999  # there is no such call, which is refused too
    return f"call({number}, {', '.join(map(repr, args))})"


REFUSED = {
    # network
    "tcp": "import socket; socket.create_connection(('127.0.0.1', PORT), 1)",
    "tcp listen": "import socket; socket.socket().bind(('127.0.0.1', 0))",
    "udp": "import socket; socket.socket(2, 2).sendto(b'x', ('127.0.0.1', 53))",
    "unix": "import socket; socket.socket(socket.AF_UNIX).bind('here')",
    "abstract unix": "import socket; socket.socket(socket.AF_UNIX).connect('\\0strop')",
    "raw": "import socket; socket.socket(2, 3, 1)",
    "netlink": "import socket; socket.socket(16, 3, 0)",
    "socketpair": "import socket; socket.socketpair()",
    "name look-up": "import socket; socket.create_connection(('example.org', 80), 1)",
    # files
    "read passwd": "open('/etc/passwd').read()",
    "read the tests": "open(TEST).read()",
    "read the project": "open(SOURCE).read()",
    "list the project": "os.listdir(os.path.dirname(SOURCE))",
    "list root": "os.listdir('/')",
    "parent's memory": "open(f'/proc/{os.getppid()}/mem', 'rb').read(1)",
    "parent's environment": "open(f'/proc/{os.getppid()}/environ').read()",
    "parent's command": "open(f'/proc/{os.getppid()}/cmdline').read()",
    "parent's files": "os.listdir(f'/proc/{os.getppid()}/fd')",
    "parent's file": "os.readlink(f'/proc/{os.getppid()}/fd/3')",
    "parent's folder": "os.readlink(f'/proc/{os.getppid()}/cwd')",
    "referee's memory": "open(f'/proc/{REFEREE}/mem', 'rb').read(1)",
    "own memory by /proc": "open('/proc/self/mem', 'r+b')",
    "write /tmp": "open('/tmp/strop-escaped', 'w').write('x')",
    "write outside": "open(OUTSIDE, 'a').write('x')",
    "truncate outside": "os.truncate(OUTSIDE, 0)",
    "open to truncate": "os.open(OUTSIDE, os.O_WRONLY | os.O_TRUNC)",
    "symlink then read": "os.symlink('/etc/passwd', 'link'); open('link').read()",
    "hard link": "os.link(OUTSIDE, 'mine')",
    "rename in": "os.rename(OUTSIDE, 'mine')",
    "rename out": "open('mine', 'w').close(); os.rename('mine', OUTSIDE)",
    "chmod": "os.chmod(OUTSIDE, 0o777)",
    "chown": "os.chown(OUTSIDE, 1, 1)",
    "utime": "os.utime(OUTSIDE)",
    "remove": "os.remove(OUTSIDE)",
    "mkfifo": "os.mkfifo('pipe')",
    "mknod": "os.mknod('device', 0o60600, os.makedev(8, 0))",
    "make a folder outside": "os.mkdir(OUTSIDE + '.d')",
    "up from its folder": "os.listdir('..')",
    "write a device": "open('/dev/mem', 'wb')",
    "a file without a name": "os.open('.', os.O_TMPFILE | os.O_RDWR)",
    "remove what was counted": "open('mine', 'w').close(); os.remove('mine')",
    "tamper with the library": "open(os.__file__, 'a')",
    # processes
    "fork": "os.fork() or os._exit(0)",
    "forkpty": "os.forkpty()",
    "posix_spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "subprocess": "import subprocess; subprocess.run(['/bin/true'])",
    "system": "assert os.system('true') == 0",
    "exec": "os.execv('/bin/true', ['true'])",
    "multiprocessing": "import multiprocessing as m; m.get_context('fork').Process().start()",
    "clone": "call(CLONE, 17, 0, 0, 0, 0)",
    "clone3": "call(435, bytes(88), 88)",
    "vfork": raw("vfork"),
    "kill parent": "os.kill(os.getppid(), 9)",
    "kill all": "os.kill(-1, 9)",
    "kill its group": "os.killpg(0, 9)",
    "tgkill parent": "call(TGKILL, os.getppid(), os.getppid(), 9)",
    "a lease on a library's file": "import fcntl; fcntl.fcntl(os.open(os.__file__, 0), 1024, 0)",
    "notice of a library's folder": (
        "import fcntl; fcntl.fcntl(os.open(os.path.dirname(os.__file__), 0), 1026, 1)"
    ),
    "seal a file": "import fcntl; fcntl.fcntl(os.open('f', 66, 384), 1033, 1)",
    "signals through a file": "import fcntl; fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())",
    "ptrace parent": raw("ptrace", 16) .replace("16", "16, os.getppid(), 0, 0"),
    "process_vm_readv": "call(PVR, os.getppid(), None, 0, None, 0, 0)",
    "process_vm_writev": raw("process_vm_writev", 1, None, 0, None, 0, 0),
    "setuid": "os.setuid(0)",
    "setsid": "os.setsid()",
    "dumpable by prctl": raw("prctl", 4, 1, 0, 0, 0),
    "outlive by prctl": raw("prctl", 1, 0, 0, 0, 0),
    "pidfd_open": raw("pidfd_open", 1, 0),
    "pidfd_getfd": raw("pidfd_getfd", 3, 0, 0),
    "raise limits": "import resource; resource.setrlimit(resource.RLIMIT_CPU, (99, 99))",
    # the kernel's other doors
    "io_uring": raw("io_uring_setup", 1, bytes(120)),
    "memfd": raw("memfd_create", b"x", 0),
    "execveat": raw("execveat", 0, b"", None, None, 0x1000),
    "bpf": raw("bpf", 0, bytes(64), 64),
    "keyctl": raw("keyctl", 0, 0, 0, 0, 0),
    "add_key": raw("add_key", b"user", b"x", b"x", 1, -3),
    "unshare": raw("unshare", 0x10000000),
    "setns": raw("setns", 3, 0),
    "mount": raw("mount", b"none", b"/", b"tmpfs", 0, None),
    "chroot": raw("chroot", b"."),
    "perf": raw("perf_event_open", bytes(120), 0, -1, -1, 0),
    "userfaultfd": raw("userfaultfd", 1),
    "another filter": raw("seccomp", 1, 0, None),
    "openat2": raw("openat2", -100, b"/etc/passwd", bytes(24), 24),
    "shared memory": raw("shmget", 0, 4096, 0o1600),
    "open by handle": raw("open_by_handle_at", -100, bytes(16), 0),
    "fallocate": "fd = os.open('f', 66, 384); os.posix_fallocate(fd, 0, 1)",
    "setxattr": "open('f', 'w').close(); os.setxattr('f', 'user.x', b'x')",
    "x32 calls": "call(0x40000000 + 41, 2, 1, 0)",
}  # fmt: skip
"""Each is one statement that has to end in `OSError`, for want of permission."""


def probe(statement: str, outside: Path) -> str:
    clone, tgkill, readv = ("220", "131", "270") if HERE == "aarch64" else ("56", "234", "310")
    names = {
        "OUTSIDE": repr(str(outside)), "TEST": repr(__file__), "REFEREE": str(os.getpid()),
        "SOURCE": repr(str(Path(tiers.__file__).parents[1] / "errors.py")), "PORT": "9",
    }  # fmt: skip
    header = "\n".join(f"{name} = {value}" for name, value in names.items())
    numbers = f"CLONE, TGKILL, PVR = {clone}, {tgkill}, {readv}"
    body = "\n".join(f"        {part.strip()}" for part in statement.split(";"))
    return f"""{LIBC}
{header}
{numbers}
def attempt():
    try:
{body}
    except OSError as error:
        return [type(error).__name__, error.errno]
    except (AssertionError, ValueError):  # of os.system, and of limits that may not grow
        return ["PermissionError", 1]
    return "got through"
"""


@pytest.mark.parametrize("name", REFUSED)
def test_an_attempt_to_break_out_is_refused(name: str, sandbox: Sandbox, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text(SECRET)
    mode = outside.stat().st_mode
    with nothing_stays(sandbox):
        with sandbox.execute(probe(REFUSED[name], outside), SHORT) as candidate:
            said = candidate.call("attempt", [], {})
        assert said != "got through"
        assert said[0] == "PermissionError" or (name, said[0]) in {
            ("name look-up", "gaierror"),
            ("clone3", "OSError"),  # ENOSYS, so that the C library falls back to clone
        }, said
    assert outside.read_text() == SECRET
    assert outside.stat().st_mode == mode
    assert os.listdir(tmp_path) == ["outside"]
    assert not Path("/tmp/strop-escaped").exists()


@pytest.mark.parametrize("name", REFUSED)
def test_an_attempt_to_break_out_of_the_other_tiers_is_refused(
    name: str, bubblewrapped: Sandbox, tmp_path: Path
) -> None:
    """Own namespaces hide more: there, what is refused above may also not exist."""
    outside = tmp_path / "outside"
    outside.write_text(SECRET)
    if name in SHOWN_BY_NAMESPACE:
        pytest.skip(SHOWN_BY_NAMESPACE[name])
    with bubblewrapped.execute(probe(REFUSED[name], outside), SHORT) as candidate:
        said = candidate.call("attempt", [], {})
    assert said != "got through"
    assert outside.read_text() == SECRET
    still_judges(bubblewrapped)


SHOWN_BY_NAMESPACE = {
    "list root": "the root of the namespace holds nothing but names of library folders",
    "list the project": "the folder holds only what the fork server runs, and that is public",
    "up from its folder": "the root of the namespace holds nothing but names of library folders",
}


@pytest.fixture(scope="module")
def bubblewrapped() -> Iterator[Sandbox]:
    if reason := refusal("bubblewrap"):
        pytest.skip(reason)
    with tiers.start("bubblewrap") as started:
        yield started


# --- a candidate's way out: using up, cheating ----------------------------------------------------

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

QUICK = Limits(seconds=0.8, wall=2.0, memory=256 * 2**20, folder=2**20, output=2**16)
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
        (child,) = children(sandbox._server.pid)
        threading.Timer(0.2, sandbox._server.kill).start()
        with pytest.raises(CandidateError, match="ended before it answered"):
            candidate.call("wait", [], {})
        with pytest.raises(SandboxError, match="the fork server ended"):
            stack.close()
    assert is_gone(child)
    folder.rmdir()  # nobody was left to do it


def test_closing_a_sandbox_leaves_no_process_and_no_folder(any_tier: str) -> None:
    sandbox = tiers.start(any_tier)  # type: ignore[arg-type]
    folder, server = folder_of(sandbox), sandbox._server.pid
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


def wait_for(fine: Any, seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while not fine() and time.monotonic() < until:
        time.sleep(0.02)
    return bool(fine())


def is_gone(pid: int) -> bool:
    def ended() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        except FileNotFoundError:
            return True

    return wait_for(ended)


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
    assert forkserver._is_too_much(tmp_path, 10**9)
    for number in range(1000):
        (tmp_path / f"{number}").touch()
    (tmp_path / "shut").mkdir(0)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "inner").mkdir(0)
    (tmp_path / "half").chmod(0o300)
    forkserver._empty(tmp_path)
    assert os.listdir(tmp_path) == []


@needs_landlock
def test_a_hidden_folder_counts_as_too_much(tmp_path: Path) -> None:
    assert not forkserver._is_too_much(tmp_path, 100)
    (tmp_path / "file").write_bytes(bytes(101))
    assert forkserver._is_too_much(tmp_path, 100)
    assert not forkserver._is_too_much(tmp_path, 10**6)
    assert not forkserver._is_too_much(tmp_path, 10**6)
    for number in range(forkserver.MOST_FILES):
        (tmp_path / f"{number}").touch()
    assert forkserver._is_too_much(tmp_path, 10**6), "one file too many"


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


# --- the filter, read by an interpreter of its own ------------------------------------------------


def verdict(
    program: list[seccomp.Instruction], number: int, *args: int, audit: int, own: int = 0
) -> int:
    """What the kernel would answer: `struct seccomp_data` through classic BPF."""
    padded = [*args, *(0 for _ in range(6 - len(args)))]
    data = struct.pack("<iIQ6Q", number, audit, 0, *padded)
    at, held = 0, 0
    while True:
        code, yes, no, operand = program[at]
        at += 1
        if code == 0x20:
            held = struct.unpack_from("<I", data, operand)[0]
        elif code == 0x06:
            return operand
        else:
            compared = {0x15: held == operand, 0x35: held >= operand, 0x45: held & operand}
            at += yes if compared[code] else no


ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
PID = 4321


@pytest.mark.parametrize("machine", [X86_64, AARCH64], ids=["x86_64", "aarch64"])
class TestFilter:
    def ask(self, machine: Machine, name: str, *args: int, threads: bool = True) -> int:
        program = seccomp.build(machine, PID, threads)
        return verdict(program, machine.calls[name], *args, audit=machine.audit)

    def test_the_allow_list_is_allowed_and_all_else_is_not(self, machine: Machine) -> None:
        program = seccomp.build(machine, PID)
        allowed = {machine.calls[name] for name in ALLOWED if name in machine.calls}
        ruled = {machine.calls[name] for name in
                 ("openat", "open", "clone", "clone3", "tgkill", "fcntl", "prlimit64")
                 if name in machine.calls}  # fmt: skip
        for number in set(range(600)) - ruled:
            answer = verdict(program, number, audit=machine.audit)
            assert answer == (ALLOW if number in allowed else EPERM), number
        assert len(allowed) > 50
        assert not allowed & ruled

    def test_threads_but_no_processes(self, machine: Machine) -> None:
        thread = 0x003D0F00  # what the C library asks for
        assert thread & 0x10000
        assert self.ask(machine, "clone", thread) == ALLOW
        assert self.ask(machine, "clone", thread, threads=False) == EPERM
        for flags in (17, 0x4111, 0x10000000 | 17, 0x01200011):  # fork, vfork, new user namespace
            assert self.ask(machine, "clone", flags) == EPERM
        assert self.ask(machine, "clone3", 1, 88) == ENOSYS

    def test_signals_to_itself_only(self, machine: Machine) -> None:
        assert self.ask(machine, "tgkill", PID, PID + 7, 9) == ALLOW
        for other in (1, 0, PID - 1, PID + 1, 2**32 - 1):
            assert self.ask(machine, "tgkill", other, PID, 9) == EPERM

    def test_no_owner_of_signals_no_lease_and_no_new_limits(self, machine: Machine) -> None:
        allowed = {0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032}
        for operation in (*range(64), *range(1020, 1050), 2**31, 2**32 - 1):
            answer = ALLOW if operation in allowed else EPERM
            assert self.ask(machine, "fcntl", 3, operation) == answer, operation
        assert self.ask(machine, "prlimit64", 0, 7, 0, 2**40 + 8) == ALLOW
        for pointer in (1, 2**32, 2**63, 2**32 - 1):
            assert self.ask(machine, "prlimit64", 0, 7, pointer, 0) == EPERM

    def test_no_file_without_a_name(self, machine: Machine) -> None:
        cases = {"openat": (3, 0), "open": (0,)} if "open" in machine.calls else {"openat": (3, 0)}
        for name, before in cases.items():
            for flags in (0, 0o1102, 0o200000, 0o2000000):
                assert self.ask(machine, name, *before, flags) == ALLOW
            assert self.ask(machine, name, *before, 0o20200002) == EPERM

    def test_another_architecture_is_denied(self, machine: Machine) -> None:
        program = seccomp.build(machine, PID)
        i386, other = 0x40000003, (AARCH64 if machine is X86_64 else X86_64).audit
        for audit in (i386, other, 0):
            assert verdict(program, machine.calls["read"], audit=audit) == EPERM
            assert verdict(program, machine.calls["exit"], audit=audit) == EPERM

    def test_x32_is_denied(self, machine: Machine) -> None:
        program = seccomp.build(machine, PID)
        for number in (0, 1, 60, 520, 2**31 - 1 - 2**30):
            assert verdict(program, 0x40000000 + number, audit=machine.audit) == EPERM
        assert verdict(program, -1, audit=machine.audit) == EPERM

    def test_it_fits_the_kernel(self, machine: Machine) -> None:
        program = seccomp.build(machine, PID)
        assert len(program) <= 4096
        assert all(0 <= yes < 256 and 0 <= no < 256 for _, yes, no, _ in program)


HEADERS = [
    (X86_64, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    (AARCH64, "/usr/include/asm-generic/unistd.h"),
]


@pytest.mark.parametrize(("machine", "path"), HEADERS, ids=["x86_64", "aarch64"])
def test_the_numbers_are_the_kernel_s(machine: Machine, path: str) -> None:
    """A wrong number would let another call through, or break a candidate."""
    if not Path(path).exists():
        pytest.skip(f"the kernel's header {path} is not installed")
    known = {}
    for line in Path(path).read_text().splitlines():
        words = line.split()
        if len(words) == 3 and words[1].startswith("__NR") and words[2].isdigit():
            known[words[1].split("_", 3)[-1]] = int(words[2])
    assert {name: known.get(name, n) for name, n in machine.calls.items()} == machine.calls
    assert len(machine.calls.keys() & known.keys()) > 0.9 * len(machine.calls)


# --- messages -------------------------------------------------------------------------------------

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary() | st.complex_numbers(allow_nan=False)
)  # fmt: skip
hashable = scalars | st.tuples(scalars, scalars) | st.frozensets(scalars)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner) | st.tuples(inner) | st.sets(hashable) | st.dictionaries(hashable, inner)
    ),
    max_leaves=12,
)


def kinds(value: Any) -> Any:
    """The types inside a value: 1 == 1.0 == True, but they are not the same."""
    if isinstance(value, list | tuple):
        return type(value), [kinds(item) for item in value]
    if isinstance(value, set | frozenset):
        return type(value), sorted(repr(kinds(item)) for item in value)
    if isinstance(value, dict):
        return dict, sorted(repr((kinds(k), kinds(v))) for k, v in value.items())
    return type(value)


@settings(max_examples=150, deadline=None)
@given(values)
def test_plain_data_survives_a_message(value: Any) -> None:
    back = codec.from_bytes(codec.to_bytes(value))
    assert back == value
    assert kinds(back) == kinds(value)


@settings(max_examples=150, deadline=None)
@given(st.binary() | st.text().map(str.encode) | values.map(codec.to_bytes).map(lambda b: b[1:]))
def test_rubbish_is_no_message_and_nothing_worse(packed: bytes) -> None:
    with contextlib.suppress(codec.NotPlainError):
        kinds(codec.from_bytes(packed))


@pytest.mark.parametrize(
    "packed",
    [b"", b"{}", b'{"a": 1, "b": 2}', b'{"call": "x"}', b'{"int": 5}', b'{"int": "x"}',
     b'{"set": [[1]]}', b'{"set": 1}', b'{"dict": [1]}', b'{"dict": [[[1], 2]]}', b'{"bytes": "x"}',
     b'{"complex": [1]}', b'{"complex": [1' + b"0" * 400 + b', 0]}', b"1" * 5000, b"[" * 10**5,
     b'{"tuple": ' * 10**5, b"\xff\xfe"],
)  # fmt: skip
def test_what_is_no_message_is_refused(packed: bytes) -> None:
    with pytest.raises(codec.NotPlainError):
        codec.from_bytes(packed)


class Sly(list):  # type: ignore[type-arg]
    def __reduce__(self) -> Any:
        raise AssertionError("pickled")

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None


@pytest.mark.parametrize(
    "value", [object(), print, (n for n in [1]), iter([1]), type(codec), {1: {2: object()}}]
)
def test_what_is_not_plain_is_not_sent(value: object) -> None:
    with pytest.raises(codec.NotPlainError) as caught:
        codec.to_bytes(value)
    assert not isinstance(caught.value, codec.TooMuchError)


def test_too_much_is_not_sent() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value in ("x" * (codec.LONGEST + 1), endless):
        with pytest.raises(codec.TooMuchError):
            codec.to_bytes(value)


LIBRARY = [
    range(1, 9, 2), slice(1, None), Decimal("1.50"), Fraction(2, 6), date(2024, 2, 29),
    datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC), dtime(3, 4), timedelta(-1, 5), UTC,
    deque([1, [2]], 3), OrderedDict([(2, 1), (1, 2)]), Counter("aab"), bytearray(b"x"),
    {1: 2}.keys(), {1: [2]}.items(), MappingProxyType({1: 2}), SimpleNamespace(a=1), array("i",
    [1]),
    UUID(int=5), PurePosixPath("a/b"), ChainMap({1: 2}), ..., int, Decimal, Point(1, [2]),
]  # fmt: skip


@pytest.mark.parametrize("value", LIBRARY, ids=lambda v: type(v).__name__)
def test_values_of_the_library_arrive_as_copies(value: Any) -> None:
    back = codec.from_bytes(codec.to_bytes([value]))[0]
    assert back == value
    assert str(type(back)) == str(type(value)).replace(
        "test_sandbox.", "strop.sandbox.values.library."
    )
    if isinstance(value, deque):
        assert back.maxlen == 3


def test_arrays_arrive_as_copies() -> None:
    for value in (np.arange(6.0).reshape(2, 3).T, np.array([True]), np.array(["x", "yz"]),
                  np.array([], dtype=np.int8), np.array("2024-01-02", dtype="M8[D]")):  # fmt: skip
        back = codec.from_bytes(codec.to_bytes(value))
        assert back.dtype == value.dtype
        assert np.array_equal(back, value)
    assert type(codec.from_bytes(codec.to_bytes(np.float32(0.5)))) is np.float32
    with pytest.raises(codec.NotPlainError):
        codec.to_bytes(np.array([object()]))
    forged = json.dumps({"array": ["|O8", [1], {"bytes": "00" * 8}]}).encode()
    with pytest.raises(codec.NotPlainError):
        codec.from_bytes(forged)


def test_a_subclass_arrives_as_what_it_is_made_of() -> None:
    back = codec.from_bytes(codec.to_bytes(Sly([1])))
    assert type(back) is list
    assert back != [2]


def test_a_message_comes_in_one_piece_or_as_an_error() -> None:
    reading, writing = os.pipe()
    codec.send(writing, {"a": (1, 2)})
    assert codec.receive(reading) == {"a": (1, 2)}
    os.write(writing, struct.pack(">I", codec.LONGEST + 1))
    with pytest.raises(codec.NotPlainError, match="over the limit"):
        codec.receive(reading)
    os.write(writing, struct.pack(">I", 10) + b"half")
    os.close(writing)
    with pytest.raises(EOFError):
        codec.receive(reading)
    os.close(reading)


# --- tests as people write them -------------------------------------------------------------------

HUMAN_EVAL = """
METADATA = {"author": "x"}

def check(candidate):
    assert candidate([1, 2]) == 3
    assert candidate([]) == 0
    assert abs(candidate([0.1, 0.2]) - 0.3) < 1e-6
"""


@pytest.mark.parametrize(
    ("code", "passed"),
    [("def total(xs): return sum(xs)", 1), ("def total(xs): return sum(xs) or 1", 0),
     ("def other(xs): return sum(xs)", 0), ("def total(xs: return", 0)],
)  # fmt: skip
def test_human_eval(code: str, passed: int, sandbox: Sandbox) -> None:
    assert score(judge(sandbox, code, HUMAN_EVAL, entry_point="total")) == (passed, 1)


def test_mbpp(sandbox: Sandbox) -> None:
    tests = ["import math", "assert area(1) == math.pi", "assert area(0) == 0"]
    right = "import math\ndef area(r): return math.pi * r * r"
    assert score(judge(sandbox, right, tests)) == (1, 1)
    assert score(judge(sandbox, "def area(r): return 3.14 * r * r", tests)) == (0, 1)


def test_programs(sandbox: Sandbox) -> None:
    tests = [{"input": "1 2\n", "output": "3\n"}, {"input": "5 -5", "output": "0"}]
    right, wrong = "print(sum(map(int, input().split())))", "print(3)"
    assert score(judge(sandbox, right, tests)) == (1, 1)
    assert score(judge(sandbox, wrong, tests)) == (0, 1)
    assert score(judge(sandbox, wrong, tests, partial=True)) == (1, 2)
    main = "def main(): print(sum(map(int, input().split())))\nif __name__ == '__main__': main()"
    assert score(judge(sandbox, main, tests)) == (1, 1)


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [("3\n", "3", True), ("3  \n\n\n", "3\n", True), ("a\r\nb", "a\nb", True), ("", "", True),
     (" 3", "3", False), ("3 4", "34", False), ("\n3", "3", False), ("3\n\n4", "3\n4", False)],
)  # fmt: skip
def test_same_output(printed: str, expected: str, same: bool) -> None:
    assert suite.same_output(printed, expected) is same


def test_a_candidate_cannot_replace_a_helper_of_the_prompt(sandbox: Sandbox) -> None:
    prompt = "def near(a, b):\n    return abs(a - b) < 0.1\n\ndef half(x):\n    ...\n"
    tests = "def check(candidate):\n    assert near(candidate(3), 1.5)\n"
    cheat = "def near(a, b): return True\ndef half(x): return 7"
    asked = {"prompt": prompt, "entry_point": "half"}
    assert score(judge(sandbox, cheat, tests, **asked)) == (0, 1)
    assert score(judge(sandbox, "def half(x): return x / 2", tests, **asked)) == (1, 1)


@pytest.mark.parametrize(
    ("tests", "why"),
    [("assert f(", "no Python"), ("x = 1 / 0\nassert f(1)", "by themselves"),
     ("assert f(print)", "cannot be sent"), ("", "claim nothing"), ("f(1)", "claim nothing"),
     ("def check(candidate): assert candidate(1)", "entry_point"), ([{"in": "x"}], "a test is"),
     ("assert f('x' * 2**24)", "cannot be sent"), ([], "claim nothing")],
)  # fmt: skip
def test_broken_tests_say_nothing(tests: Any, why: str, sandbox: Sandbox) -> None:
    finding = judge(sandbox, "def f(x): return x", tests)
    assert why in (finding.unjudged or "")
    still_judges(sandbox)


SIGNS = """
assert sign(5) == 1
assert sign(-5) == -1
assert sign(0) == 0
for n in (1, 2, 3):
    assert sign(n) == 1
"""


@pytest.mark.parametrize(
    ("code", "counts"),
    [
        ("def sign(x): return (x > 0) - (x < 0)", (6, 6)),
        ("def sign(x): return 1", (4, 6)),  # wrong for -5 and 0
        ("def sign(x): return x // abs(x)", (5, 6)),  # raises for 0
        ("def sign(x): return 1 if x in (5, 1) else [][0]", (2, 6)),
        ("import os\ndef sign(x): return 1 if x == 5 else os._exit(0)", (1, 6)),
        ("oops", (0, 6)),  # nothing ran: three, and three passes of the loop
    ],
)
def test_partial_credit(code: str, counts: tuple[int, int], sandbox: Sandbox) -> None:
    assert score(judge(sandbox, code, SIGNS, partial=True)) == counts
    alone = score(judge(sandbox, code, SIGNS))
    assert alone == (int(counts[0] == counts[1]), 1)


def test_ending_the_tests_early_gains_nothing(sandbox: Sandbox) -> None:
    tests = "assert f(1) == 1\nkept = f(2) + 1\nassert f(3) == 3\nassert f(4) == 4"
    stop = "def f(x): return x if x == 1 else None"
    assert score(judge(sandbox, stop, tests, partial=True)) == (1, 3)
    skipped = "for x in f(1):\n    assert f(x) == x"
    assert score(judge(sandbox, "def f(x): return []", skipped)) == (0, 1)


def test_an_answer_sent_back_is_the_candidate_s_fault(sandbox: Sandbox) -> None:
    """Else it could make its own verdict void: text is longer on the way back."""
    code = "def f(x): return '\\x7f' * (12 * 2**20) if x == 1 else x"
    tests = "assert f(f(1) + f(1)) == 2"
    assert score(judge(sandbox, code, tests)) == (0, 1)


def test_endless_work_of_the_tests_on_an_answer_is_the_candidate_s_fault(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(referee, "SPARE_SECONDS", 0.3)
    tests = "assert sum(1 for _ in range(f(1))) == 3"
    with nothing_stays(sandbox):
        assert score(judge(sandbox, "def f(x): return 10**12", tests, limits=asdict(QUICK))) == (
            0, 1,
        )  # fmt: skip
    assert score(judge(sandbox, "def f(x): return 3", tests)) == (1, 1)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_built_in_errors_arrive_as_what_they_are(sandbox: Sandbox) -> None:
    tests = """
try:
    f(-1)
    said = "nothing"
except ValueError as error:
    said = str(error)
assert said == "negative"
"""
    code = "class Mine(ValueError): pass\ndef f(x): raise {}('negative')"
    assert score(judge(sandbox, code.format("Mine"), tests)) == (1, 1)
    assert score(judge(sandbox, code.format("OSError"), tests)) == (0, 1)


# --- workers --------------------------------------------------------------------------------------

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


# --- tiers ----------------------------------------------------------------------------------------


def test_a_tier_that_starts_here_holds(any_tier: str) -> None:
    tiers.holds(any_tier)  # type: ignore[arg-type]
    with tiers.start(any_tier) as sandbox:  # type: ignore[arg-type]
        still_judges(sandbox)
        assert sandbox.run_program("print(input())", "hello", SHORT).output == "hello\n"
        with sandbox.execute("import numpy\ndef f(): return float(numpy.ones(3).sum())",
                             Limits()) as candidate:  # fmt: skip
            assert candidate.call("f", [], {}) == 3.0


def test_without_a_wall_nothing_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "CLIMB", "def climb(outside): return ['fly']")
    with pytest.raises(SandboxError, match="fly" if landlock.version() else ""):
        tiers.holds("landlock")


@pytest.fixture
def nothing_known() -> Iterator[None]:
    tiers.strongest.cache_clear()
    yield
    tiers.strongest.cache_clear()


@pytest.mark.usefixtures("nothing_known")
def test_it_fails_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_wall(tier: str, handle: int) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('no wall here')"]

    monkeypatch.setattr(tiers, "command", no_wall)
    with pytest.raises(SandboxError, match="so no code is run") as caught:
        tiers.strongest()
    assert caught.value.problem.count("no wall here") == len(get_args(tiers.Tier))


@pytest.mark.usefixtures("nothing_known")
def test_it_fails_closed_where_the_climb_itself_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "CLIMB", "1 / 0")
    with pytest.raises(SandboxError, match="so no code is run"):
        tiers.strongest()


@pytest.mark.usefixtures("nothing_known")
@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "riscv64")])
def test_it_fails_closed_elsewhere(
    system: str, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(SandboxError, match="has no sandbox here"):
        tiers.strongest()


@pytest.mark.skipif(landlock.version() > 0, reason="this kernel has Landlock")
def test_without_landlock_no_candidate_runs_in_its_tier() -> None:
    with pytest.raises(SandboxError):
        tiers.start("landlock")


def test_what_cannot_be_shut_in_does_not_run(tmp_path: Path) -> None:
    """A limit the kernel refuses: the child ends before any code reaches it."""
    if landlock.version() == 0:
        pytest.skip("this kernel has no Landlock")
    sandbox = tiers.start("landlock")
    refused = Limits(seconds=2.0, memory=2.5)  # type: ignore[arg-type]
    with pytest.raises(SandboxError, match="could not be shut in"), sandbox.execute("", refused):
        pytest.fail("it ran")
    assert is_gone(sandbox._server.pid)


# --- speed, and what thousands of executions leave ------------------------------------------------


def trivial(sandbox: Sandbox, count: int) -> None:
    for number in range(count):
        with sandbox.execute("def f(x): return x + 1", SHORT) as candidate:
            assert candidate.call("f", [number], {}) == number + 1


def rate_of(sandboxes: tuple[Sandbox, ...], count: int) -> float:
    """Executions a second over sandboxes that run side by side."""
    began = time.monotonic()
    with ThreadPoolExecutor(len(sandboxes)) as threads:
        list(threads.map(lambda sandbox: trivial(sandbox, count), sandboxes))
    return len(sandboxes) * count / (time.monotonic() - began)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tier", "least"), [("landlock", 300), ("bubblewrap+landlock", 60), ("bubblewrap", 60)]
)
def test_throughput(tier: str, least: int) -> None:
    if reason := refusal(tier):
        pytest.skip(reason)
    with tiers.start(tier) as one, tiers.start(tier) as two:  # type: ignore[arg-type]
        before = handles(one._server.pid), handles(os.getpid())
        # other work on the machine can only slow it down: the best round counts
        rate = max(rate_of((one, two), 250) for _ in range(5))
        assert (handles(one._server.pid), handles(os.getpid())) == before
        still_judges(one)
    print(f"{tier}: {rate:.0f} executions a second over two sandboxes")
    assert rate >= least
