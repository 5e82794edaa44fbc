"""What a child process of ours runs before its own program. Started by ``child.spawn``.

``posix_spawn`` knows no working directory, no limits, no other user, no view of the file system
and no parent-death signal, so a child first is this script, which sets them and becomes the
program. It runs with ``-I -S`` and imports next to nothing: it costs some 10 ms.

    python -I -S trampoline.py PARENT FOLDER LIMITS VIEW PROGRAM ARGUMENT...

``LIMITS`` is ``name=value`` pairs joined by commas: rlimits (``nofile=4096``; both the soft and
the hard limit are set), and ``uid``, which becomes user and group id. ``VIEW`` is lines, in the
order in which they are done, in a mount namespace of its own when there is one at all:

| line          | does                                                                     |
|---------------|--------------------------------------------------------------------------|
| ``c FOLDER``  | join that cgroup                                                         |
| ``h FOLDER``  | an empty folder in memory in its place                                   |
| ``t FOLDER``  | the same, for everybody to write in, as /tmp is                          |
| ``r PATH``    | shown again in what was hidden, not to be written                        |
| ``w PATH``    | shown again, to be written                                               |
| ``l PATH TO`` | a symbolic link in what was hidden (a tab before TO)                     |

Exit code 127 and one line on standard error when it cannot go on.
"""

import ctypes
import os
import resource
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_SIGKILL = 9
_SIGPIPE = 13
_SIGXFSZ = 25
_CLONE_NEWNS = 0x20000
_CLONE_NEWUSER = 0x10000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 32, 4096, 16384, 1 << 18
_KEPT_FLAGS = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
_LIBC = ctypes.CDLL(None, use_errno=True)


def main(parent: int, folder: str, limits: str, view: str, command: list[str]) -> None:
    """Set everything, then become ``command``. Does not return."""
    os.closerange(3, 1 << 16)
    lines = [(line[0], line[2:]) for line in view.split("\n") if line]
    for kind, path in lines:
        if kind == "c":
            with open(f"{path}/cgroup.procs", "w") as file:
                file.write("0")
    uid = _limit(limits)
    if any(kind != "c" for kind, _ in lines):
        _unshare(own_user=uid is None)
        _arrange(lines)
    os.chdir(folder)
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    # Python ignores these two, and what is ignored stays ignored in the program.
    for number in (_SIGPIPE, _SIGXFSZ):
        _LIBC.signal(number, None)
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # After the user was changed, which clears it.
    _LIBC.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(127)  # the parent died before the signal was set: it will never come
    os.execv(command[0], command)  # noqa: S606 - an argument list of ours, no shell


def _limit(limits: str) -> int | None:
    """Set the rlimits; the user id to take, if one was given."""
    uid = None
    for pair in filter(None, limits.split(",")):
        name, _, value = pair.partition("=")
        if name == "uid":
            uid = int(value)
            continue
        kind = getattr(resource, f"RLIMIT_{name.upper()}")
        hard = resource.getrlimit(kind)[1]
        limit = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
        resource.setrlimit(kind, (limit, limit))
    return uid


def _unshare(*, own_user: bool) -> None:
    """A mount namespace of its own; who is not root needs a user namespace for that."""
    uid, gid = os.getuid(), os.getgid()
    _check(_LIBC.unshare(_CLONE_NEWNS | (_CLONE_NEWUSER if own_user else 0)), "unshare")
    if own_user:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)


def _arrange(lines: list[tuple[str, str]]) -> None:
    """Hide and show. What is shown again is held open before anything is hidden."""
    held = {path: os.open(path, os.O_PATH) for kind, path in lines if kind in "rw"}
    for kind, path in lines:
        if kind in "ht":
            mode = "1777" if kind == "t" else "755"
            _mount("tmpfs", path, "tmpfs", _MS_NOSUID | _MS_NODEV, f"mode={mode}")
        elif kind in "rw":
            _show(held[path], path, writable=kind == "w")
        elif kind == "l":
            link, _, target = path.partition("\t")
            if not os.path.lexists(link):
                os.makedirs(os.path.dirname(link), 0o755, exist_ok=True)
                os.symlink(target, link)
    for fd in held.values():
        os.close(fd)


def _show(fd: int, path: str, *, writable: bool) -> None:
    source = f"/proc/self/fd/{fd}"
    if os.path.isdir(source):
        os.makedirs(path, 0o755, exist_ok=True)
    elif not os.path.exists(path):
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(source, path, None, _MS_BIND | _MS_REC)
    if not writable:
        # What the original mount forbids cannot be left out in a user namespace.
        kept = os.statvfs(path).f_flag & _KEPT_FLAGS
        _mount(None, path, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | kept)


def _mount(source: str | None, path: str, kind: str | None, flags: int, data: str = "") -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, path, kind)]
    _check(_LIBC.mount(*words, flags, data.encode() or None), f"mount {path}")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:])
    except OSError as error:
        os.write(2, f"cannot start {sys.argv[5]}: {error}\n".encode())
        os._exit(127)
