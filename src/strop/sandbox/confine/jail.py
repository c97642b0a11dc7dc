"""Confines the calling process irrevocably: limits, no capabilities, Landlock, then seccomp.

Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from dataclasses import dataclass

from strop.sandbox.confine import landlock, seccomp
from strop.sandbox.confine.syscalls import Machine

CAPABILITY_VERSION = 0x20080522
PR_SET_PDEATHSIG = 1


MOST_WAITING = 4.0
"""An execution that mostly waited for a CPU may last this many times its wall clock limit."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one execution: seconds of CPU and of wall clock (far more, so that a busy machine
    changes no verdict); bytes of memory, of its folder, of its output."""

    seconds: float = 5.0
    wall: float = 20.0
    memory: int = 512 * 2**20
    folder: int = 16 * 2**20
    output: int = 2**20


def shut_in(
    limits: Limits, machine: Machine, rules: int | None, threads: bool, parent: int
) -> None:
    """Confine this process. `rules` is a Landlock ruleset or `None`; this process ends when the
    process `parent` ends.

    Raises `OSError` if any part fails; the caller must then run nothing untrusted.
    """
    cpu = int(limits.seconds) + 1
    for kind, most in (
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_FSIZE, limits.folder),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        _, given = resource.getrlimit(kind)
        most = most if given == resource.RLIM_INFINITY else min(most, given)
        resource.setrlimit(kind, (most, most))
    header = struct.pack("Ii", CAPABILITY_VERSION, 0)
    if seccomp.LIBC.capset(header, bytes(24)) or seccomp.LIBC.prctl(
        seccomp.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0
    ):
        raise OSError(ctypes.get_errno(), "capabilities cannot be dropped")
    if seccomp.LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) or os.getppid() != parent:
        raise OSError(ctypes.get_errno(), "its end is not bound to its parent's")
    if rules is not None:
        landlock.restrict(rules)
        os.close(rules)
    seccomp.install(seccomp.build(machine, os.getpid(), threads))
