"""The system call filter of rung 3: calls that no plugin needs and that reach beyond its walls.

Without capabilities most of what is dangerous is refused by the kernel anyway. Left are calls
that need none: looking into processes, keyrings (which have no namespace), new namespaces (in
which one has every capability again), and faces of the kernel in which most of its holes were
found. They answer EPERM. Everything else is allowed: a list of what is allowed breaks whenever a
library or the kernel learns something new.

``seccomp(2)`` takes a program for the old BPF machine; here it is made by hand, since libseccomp
is not at hand everywhere. Two instructions per call, no jump beyond the next one but one.
"""

from __future__ import annotations

import os
import struct
from typing import Final

_X86_64: Final = "x86_64"
_AUDIT_ARCH: Final = {_X86_64: 0xC000003E, "aarch64": 0xC00000B7}
#: Numbers on x86_64 and aarch64.
_REFUSED: Final = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
_CLONE: Final = (56, 220)
_CLONE3: Final = 435
#: CLONE_NEW: NS, CGROUP, UTS, IPC, USER, PID, NET (TIME is none of clone's flags).
_NEW_NAMESPACES: Final = 0x7E020000
_X32: Final = 0x40000000
_EPERM, _ENOSYS = 1, 38
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
# Offsets in struct seccomp_data; both machines are little-endian.
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16


def program(machine: str = "") -> bytes:
    """The filter for ``machine`` (default: this one) as an array of ``struct sock_filter``.

    Empty on machines whose numbers are not known here. Given to the trampoline by
    ``hosts.views`` (``s`` lines).
    """
    machine = machine or os.uname().machine
    if machine not in _AUDIT_ARCH:
        return b""
    column = list(_AUDIT_ARCH).index(machine)
    # Another architecture's calls have other numbers: a 32-bit call would pass unseen.
    code = [*_load(_ARCH), _op(_EQUAL, _AUDIT_ARCH[machine], 1, 0), _op(_RETURN, _KILL)]
    code += _load(_NUMBER)
    if machine == _X86_64:
        code += _when(_AT_LEAST, _X32, _ERRNO | _EPERM)
    for numbers in _REFUSED.values():
        code += _when(_EQUAL, numbers[column], _ERRNO | _EPERM)
    # Its flags lie in memory, which a filter cannot read; C libraries then use clone.
    code += _when(_EQUAL, _CLONE3, _ERRNO | _ENOSYS)
    code += _when(_EQUAL, _CLONE[column], None)
    code += [*_load(_FIRST_ARGUMENT), *_when(_ANY_BIT, _NEW_NAMESPACES, _ERRNO | _EPERM)]
    return b"".join([*code, _op(_RETURN, _ALLOW)])


def _op(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("<HBBI", code, then, otherwise, value)


def _load(offset: int) -> list[bytes]:
    return [_op(_LOAD, offset)]


def _when(test: int, value: int, answer: int | None) -> list[bytes]:
    """Answer so when the test holds; with None go on then, and allow when it does not."""
    if answer is None:
        return [_op(test, value, 1, 0), _op(_RETURN, _ALLOW)]
    return [_op(test, value, 0, 1), _op(_RETURN, answer)]
