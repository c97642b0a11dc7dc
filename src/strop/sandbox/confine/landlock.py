"""Landlock: files, ports and signals a process may reach, from the kernel's own header.

Standard library only. Numbers as in include/uapi/linux/landlock.h; the calls have the same numbers
on every architecture. Landlock does not hide that a file exists, or its size and times (stat).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from strop.sandbox.confine.seccomp import LIBC

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
PATH_BENEATH, ASK_VERSION = 1, 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = (1 << n for n in range(4))
MAKE_DIR, MAKE_FILE, TRUNCATE = 1 << 7, 1 << 8, 1 << 14
READ = READ_FILE | READ_DIR
OWN = READ | WRITE_FILE | MAKE_DIR | MAKE_FILE | TRUNCATE
"""Removing is not allowed, because an open or mapped file without a name would escape the count of
bytes."""

FILES_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many kinds of access to files a version knows."""
PORTS_SINCE, SCOPES_SINCE = 4, 6
BIND_AND_CONNECT, SOCKETS_AND_SIGNALS = 3, 3


def version() -> int:
    """The kernel's Landlock version; 0 where there is none."""
    return max(0, _call(CREATE_RULESET, None, 0, ASK_VERSION))


def ruleset(readable: Iterable[Path], own: Path) -> int:
    """A file descriptor of a ruleset that allows only reading below `readable`, and making and
    writing files below `own`.

    Raises `OSError` where the kernel has no Landlock.
    """
    found = version()
    known = (1 << FILES_BY_VERSION.get(found, 16)) - 1
    ports = BIND_AND_CONNECT if found >= PORTS_SINCE else 0
    scopes = SOCKETS_AND_SIGNALS if found >= SCOPES_SINCE else 0
    size = 24 if found >= SCOPES_SINCE else 16 if found >= PORTS_SINCE else 8
    attributes = struct.pack("QQQ", known, ports, scopes)[:size]
    rules = _expect(_call(CREATE_RULESET, attributes, size, 0), "landlock_create_ruleset")
    for path, access in [*((path, READ) for path in readable), (own, OWN)]:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        kinds = access if path.is_dir() else access & (READ_FILE | WRITE_FILE | EXECUTE)
        beneath = struct.pack("=Qi", kinds & known, handle)
        _expect(_call(ADD_RULE, rules, PATH_BENEATH, beneath, 0), f"landlock_add_rule {path}")
        os.close(handle)
    return rules


def restrict(rules: int) -> None:
    """Bind this process to a ruleset for good; it must have given up new privileges before."""
    _expect(_call(RESTRICT_SELF, rules, 0), "landlock_restrict_self")


def _call(number: int, *arguments: object) -> int:
    result: int = LIBC.syscall(number, *arguments)
    return result


def _expect(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)
    return result
