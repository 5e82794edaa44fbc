"""What a child process of ours runs before its own program. Started by ``child.spawn``.

``posix_spawn`` knows no working directory, no limits and no parent-death signal, so a child first
is this script, which sets them and becomes the program. It runs with ``-I -S`` and imports next
to nothing: it costs some 10 ms.

    python -I -S trampoline.py PARENT FOLDER LIMITS PROGRAM ARGUMENT...

``LIMITS`` is ``name=value`` pairs joined by commas (``nofile=4096,as=1073741824``); both the soft
and the hard limit are set. Exit code 127 and one line on standard error when it cannot go on.
"""

import ctypes
import os
import resource
import sys

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
_SIGPIPE = 13
_SIGXFSZ = 25


def main(parent: int, folder: str, limits: str, command: list[str]) -> None:
    """Set everything, then become ``command``. Does not return."""
    libc = ctypes.CDLL(None)
    os.closerange(3, 1 << 16)
    os.chdir(folder)
    for pair in filter(None, limits.split(",")):
        name, _, value = pair.partition("=")
        kind = getattr(resource, f"RLIMIT_{name.upper()}")
        hard = resource.getrlimit(kind)[1]
        limit = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
        resource.setrlimit(kind, (limit, limit))
    # Python ignores these two, and what is ignored stays ignored in the program.
    for number in (_SIGPIPE, _SIGXFSZ):
        libc.signal(number, None)
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(127)  # the parent died before the signal was set: it will never come
    os.execv(command[0], command)  # noqa: S606 - an argument list of ours, no shell


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
    except OSError as error:
        os.write(2, f"cannot start {sys.argv[4]}: {error}\n".encode())
        os._exit(127)
