"""Finds the strongest sandbox tier that works on this machine, by trying to break out of each."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
import tempfile
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from strop.errors import SandboxError
from strop.sandbox.client import Sandbox
from strop.sandbox.confine.jail import Limits
from strop.sandbox.confine.syscalls import MACHINES
from strop.sandbox.forkserver import readable

Tier = Literal["bubblewrap+landlock", "landlock", "bubblewrap"]
"""Strongest first. seccomp, limits and an empty folder of its own are part of each."""

SOURCE = Path(__file__).parents[2]

CLIMB = """
import os, socket, subprocess

def climb(outside):
    attempts = {
        "read a file outside": lambda: open(outside).read(),
        "write a file outside": lambda: open(outside + ".new", "w"),
        "list a folder outside": lambda: os.listdir(os.path.dirname(outside)),
        "leave a file in /": lambda: open("/left", "w"),
        "leave a file in /tmp": lambda: open("/tmp/strop-left", "w"),
        "leave a file in /dev": lambda: open("/dev/left", "w"),
        "leave a file in /dev/shm": lambda: open("/dev/shm/strop-left", "w"),
        "look at its parent": lambda: open(f"/proc/{os.getppid()}/maps"),
        "open a socket": lambda: socket.socket(),
        "start a process": lambda: os.fork() or os._exit(0),
        "run a program": lambda: subprocess.run(["/bin/true"]),
        "signal its parent": lambda: os.kill(os.getppid(), 0),
    }
    over = []
    for name, attempt in attempts.items():
        try:
            attempt()
            over.append(name)
        except OSError:
            pass
    return over
"""


def command(tier: Tier, handle: int) -> list[str]:
    """The program that starts a fork server inside a tier's outer wall."""
    boot = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); "
        "from strop.sandbox.forkserver import main; sys.path.pop(0); main()"
    )
    inner = "landlock" if "landlock" in tier else "none"
    python = [sys.executable, "-I", "-c", boot, str(handle), inner]
    if "bubblewrap" not in tier:
        return python
    # only Landlock would keep a candidate from reading about its parent in /proc
    proc = ["--proc", "/proc"] if "landlock" in tier else []
    return [*_bubblewrap(), *proc, *READ_ONLY, *python, FOLDER]


FOLDER = "/candidate"
READ_ONLY = ("--remount-ro", "/", "--remount-ro", "/dev")
"""The candidate's folder is the only writable place."""


def _bubblewrap() -> list[str]:
    """Separate namespaces (no network, no other process visible), read-only libraries, and a small
    folder in memory."""
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxError("bubblewrap is not installed", fix="apt-get install bubblewrap")
    places = {str(p) for p in readable() if not p.is_symlink() and p.parts[1] != "dev"}
    places |= {"/usr", sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib")}
    places |= {str(SOURCE / "strop/__init__.py"), str(SOURCE / "strop/sandbox")}
    places |= {os.path.realpath(place) for place in places}
    bound = [word for place in sorted(places) for word in ("--ro-bind", place, place)]
    links = [
        word
        for link in ("/lib", "/lib64", "/bin")
        if Path(link).is_symlink()
        for word in ("--symlink", str(Path(link).readlink()), link)
    ]
    return [found, "--unshare-all", "--die-with-parent", "--new-session",
            *bound, *links, "--dev", "/dev", "--size", str(64 * 2**20), "--tmpfs", FOLDER,
            "--chdir", FOLDER]  # fmt: skip


def start(tier: Tier) -> Sandbox:
    """A fork server in a tier. Raises `SandboxError` where it does not start."""
    return Sandbox(lambda handle: command(tier, handle))


def holds(tier: Tier) -> None:
    """Try to break out of a tier. Raises `SandboxError` if the tier does not start or can be
    broken."""
    if platform.system() != "Linux" or platform.machine() not in MACHINES:
        raise SandboxError(f"{platform.system()} on {platform.machine()} has no sandbox here")
    with tempfile.TemporaryDirectory() as outside, start(tier) as sandbox:
        secret = Path(outside, "secret")
        secret.write_text("not for a candidate")
        try:
            with sandbox.execute(CLIMB, Limits(seconds=10.0)) as candidate:
                over = candidate.call("climb", (str(secret),), {})
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing was shown to hold
            raise SandboxError(f"the attempt to break out failed by itself: {error}") from None
        if over:
            raise SandboxError(f"a candidate could {', '.join(over)}")


@cache
def strongest() -> Tier:
    """The strongest tier that holds on this machine.

    Raises `SandboxError` if none does; code is then not run at all.
    """
    reasons = []
    for tier in get_args(Tier):
        try:
            holds(tier)
        except SandboxError as error:
            reasons.append(f"{tier}: {error.problem}")
        else:
            return tier  # type: ignore[no-any-return]
    raise SandboxError(
        f"no sandbox holds on this machine, so no code is run ({'; '.join(reasons)})",
        fix="use Linux 5.13 or newer with Landlock, or install bubblewrap",
    )
