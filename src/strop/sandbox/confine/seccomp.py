"""A seccomp filter: system calls by allow-list, everything else answers EPERM.

Classic BPF as in the kernel's Documentation/userspace-api/seccomp_filter.rst. Standard library
only: the fork server imports this and nothing heavier.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable

from strop.sandbox.confine.syscalls import ALLOWED, Machine

LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, DENY, NOT_THERE = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16
X32_BIT = 0x40000000
CLONE_THREAD = 0x00010000
NAMELESS_FILE = 0x00400000
"""The bit of O_TMPFILE that is not O_DIRECTORY; such a file would not be listed in its folder."""

FILE_COMMANDS = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)
"""Allowed commands of fcntl: duplicate, read and write flags, lock, get a pipe's size. Not allowed:
F_SETOWN, F_SETSIG (the kernel would send signals for the candidate), F_SETLEASE, F_NOTIFY (the
candidate could delay other processes that open a library's file), seals, and commands of later
kernels."""

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand."""


LIBC = ctypes.CDLL(None, use_errno=True)
"""Opened once rather than by every candidate."""


class Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def build(machine: Machine, pid: int, threads: bool = True) -> list[Instruction]:
    """The filter of the process `pid`: the allow-list; threads (with `threads`) but no processes;
    signals only to itself; limits may be read but not set; no unnamed files."""
    calls = machine.calls
    allowed = sorted(calls[name] for name in ALLOWED if name in calls)
    return [
        (LOAD, 0, 0, ARCHITECTURE_AT),
        (JUMP_EQUAL, 1, 0, machine.audit),
        (RETURN, 0, 0, DENY),
        (LOAD, 0, 0, NUMBER_AT),
        (JUMP_AT_LEAST, 0, 1, X32_BIT),
        (RETURN, 0, 0, DENY),
        *(step for number in allowed for step in _when(number, [(RETURN, 0, 0, ALLOW)])),
        *_when(calls["clone3"], [(RETURN, 0, 0, NOT_THERE)]),  # glibc then asks for clone
        *_when(calls["openat"], [_argument(2), *_unless(JUMP_ANY_BIT, NAMELESS_FILE)]),
        *(_when(calls["open"], [_argument(1), *_unless(JUMP_ANY_BIT, NAMELESS_FILE)])
          if "open" in calls else ()),
        *_when(calls["clone"], [_argument(0), *_if(JUMP_ANY_BIT, CLONE_THREAD * threads)]),
        *_when(calls["tgkill"], [_argument(0), *_if(JUMP_EQUAL, pid)]),
        *_when(calls["fcntl"], [_argument(1), *_if_one_of(FILE_COMMANDS)]),
        *_when(calls["prlimit64"], _null(2)),
        (RETURN, 0, 0, DENY),
    ]  # fmt: skip


def install(instructions: Iterable[Instruction]) -> None:
    """Bind this thread (and all it starts) to a filter for good. Raises `OSError`."""
    packed = b"".join(struct.pack("HBBI", *step) for step in instructions)
    memory = ctypes.create_string_buffer(packed, len(packed))
    program = Program(len(packed) // 8, ctypes.addressof(memory))
    if LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "no_new_privs")
    if LIBC.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "seccomp")


def _when(number: int, steps: list[Instruction]) -> list[Instruction]:
    """Do the steps, which end in a verdict, for this call only."""
    return [(JUMP_EQUAL, 0, len(steps), number), *steps]


def _argument(position: int, high: bool = False) -> Instruction:
    return (LOAD, 0, 0, ARGUMENTS_AT + 8 * position + 4 * high)


def _if(jump: int, value: int) -> list[Instruction]:
    return [(jump, 0, 1, value), (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, DENY)]


def _unless(jump: int, value: int) -> list[Instruction]:
    return [(jump, 0, 1, value), (RETURN, 0, 0, DENY), (RETURN, 0, 0, ALLOW)]


def _if_one_of(values: tuple[int, ...]) -> list[Instruction]:
    last = len(values)
    tests = [(JUMP_EQUAL, last - i, 0, value) for i, value in enumerate(values)]
    return [*tests, (RETURN, 0, 0, DENY), (RETURN, 0, 0, ALLOW)]


def _null(position: int) -> list[Instruction]:
    """Both halves of a pointer are zero."""
    return [
        _argument(position, high=True), (JUMP_EQUAL, 0, 3, 0),
        _argument(position), (JUMP_EQUAL, 0, 1, 0),
        (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, DENY),
    ]  # fmt: skip
