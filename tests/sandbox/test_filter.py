"""The filter of system calls, instruction by instruction."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from strop.sandbox.confine import seccomp
from strop.sandbox.confine.syscalls import AARCH64, ALLOWED, X86_64, Machine


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
