"""The system call filter, run by a small BPF machine of our own: no kernel is asked."""

import struct

import pytest

from tidegate.environments.syscalls import program

ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
X86_64, AARCH64, I386 = 0xC000003E, 0xC00000B7, 0x40000003
MACHINES = [("x86_64", X86_64), ("aarch64", AARCH64)]


def answer(code: bytes, arch: int, number: int, first: int = 0) -> int:
    """What the filter says to a call."""
    data = struct.pack("<IIQQQQQQQ", number, arch, 0, first, 0, 0, 0, 0, 0)
    steps = [struct.unpack_from("<HBBI", code, at) for at in range(0, len(code), 8)]
    at = value = 0
    while True:
        kind, then, otherwise, operand = steps[at]
        at += 1
        if kind == 0x20:
            (value,) = struct.unpack_from("<I", data, operand)
        elif kind == 0x06:
            return operand
        else:
            holds = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}
            at += then if holds[kind] else otherwise


@pytest.mark.parametrize(
    ("machine", "arch", "calls"),
    [("x86_64", X86_64, (101, 165, 250, 272, 425)), ("aarch64", AARCH64, (117, 40, 219, 97, 425))],
)
def test_T_S20_ptrace_mount_keyctl_unshare_and_io_uring_are_refused(machine, arch, calls):
    assert [answer(program(machine), arch, one) for one in calls] == [ERRNO | 1] * 5


@pytest.mark.parametrize(
    ("machine", "arch", "calls"),
    [("x86_64", X86_64, (0, 1, 41, 59, 202)), ("aarch64", AARCH64, (63, 64, 198, 221, 98))],
)
def test_read_write_socket_execve_and_futex_pass(machine, arch, calls):
    assert [answer(program(machine), arch, one) for one in calls] == [ALLOW] * 5


@pytest.mark.parametrize(("machine", "arch", "clone"), [(*MACHINES[0], 56), (*MACHINES[1], 220)])
def test_threads_and_processes_may_be_made_and_namespaces_not(machine, arch, clone):
    code = program(machine)
    thread, fork, user = 0x3D0F00, 0x11, 0x10000011
    assert [answer(code, arch, clone, flags) for flags in (thread, fork)] == [ALLOW, ALLOW]
    assert answer(code, arch, clone, user) == ERRNO | 1
    assert answer(code, arch, 435) == ERRNO | 38, "a C library tries clone then"


def test_calls_of_another_architecture_do_not_pass_by_their_numbers():
    assert answer(program("x86_64"), I386, 26) == KILL  # ptrace of i386
    assert answer(program("x86_64"), X86_64, 0x40000000 | 521) == ERRNO | 1  # ptrace of x32


def test_there_is_none_for_a_machine_whose_numbers_are_not_known():
    assert program("riscv64") == b""
