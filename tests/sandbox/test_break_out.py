"""Untrusted code stays inside: every way out is tried, and after each the sandbox still judges."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from strop.sandbox import tiers
from strop.sandbox.client import Sandbox
from tests.support.sandboxes import SECRET, SHORT, nothing_stays, refusal, still_judges

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
