"""What a child process of ours runs before its own program. Started by ``spawning``.

``posix_spawn`` knows no working directory, no limits, no other user, no namespaces and no
parent-death signal, so a child first is this script, which sets them and becomes the program. It
runs with ``-I -S`` and imports next to nothing: it costs some 10 ms.

    python -I -S trampoline.py PARENT FOLDER LIMITS VIEW PROGRAM ARGUMENT...

``LIMITS`` is ``name=value`` pairs joined by commas: rlimits (``nofile=4096``; both the soft and
the hard limit are set), and ``uid``, which becomes user and group id. ``VIEW`` is lines, in the
order in which they are done, in a mount namespace of its own when there is one at all:

| line             | does                                                                  |
|------------------|-----------------------------------------------------------------------|
| ``c FOLDER``     | join that cgroup                                                      |
| ``n FOLDER``     | a new, empty root (made over FOLDER); process and IPC namespaces      |
| ``h FOLDER``     | an empty folder in memory in its place                                |
| ``t FOLDER SIZE``| the same for everybody to write in, up to SIZE bytes                  |
| ``r PATH AT``    | shown in what was hidden, there or AT another place, not to be written|
| ``w PATH AT``    | the same, to be written                                               |
| ``l PATH TO``    | a symbolic link in what was hidden                                    |
| ``p FOLDER``     | the processes of its own namespace, as /proc                          |
| ``s HEX``        | a system call filter (``seccomp``), set last of all                   |

(A tab stands before the second word.) With ``n`` there are three processes. This one makes the
namespaces, starts the other two as children of its *parent* (CLONE_PARENT), writes both numbers
to descriptor 3 and ends. One becomes the program: exit code, signals and limits are those of any
child. The other, the keeper, is process 1 of the namespace: with it everything in there ends. It
is there because the kernel treats process 1 unlike others (it cannot be terminated, nor can it
kill itself), and a plugin must not be that.

Exit code 127 and one line on standard error when it cannot go on.
"""

import ctypes
import os
import resource
import select
import struct
import sys

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_SIGKILL, _SIGPIPE, _SIGCHLD, _SIGXFSZ = 9, 13, 17, 25
_SIG_DFL, _SIG_IGN = 0, 1
_CLONE_PARENT = 0x8000
_CLONE_NEWNS, _CLONE_NEWIPC = 0x20000, 0x8000000
_CLONE_NEWUSER, _CLONE_NEWPID = 0x10000000, 0x20000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 32, 4096, 16384, 1 << 18
_KEPT_FLAGS = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
_MNT_DETACH = 2
# These two have no wrapper in every C library, and one number on every machine.
_SYS_CLONE3, _SYS_MOUNT_SETATTR = 435, 442
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = -100, 0x8000, 1
_REPORT = 3
_KEEPERS = ("/usr/bin/sleep", "/bin/sleep")
_LIBC = ctypes.CDLL(None, use_errno=True)


def main(parent: int, folder: str, limits: str, view: str, command: list[str]) -> None:
    """Set everything, then become ``command``. Does not return."""
    lines = [(line[0], *line[2:].partition("\t")[::2]) for line in view.split("\n") if line]
    kinds = {kind for kind, _, _ in lines}
    os.closerange(_REPORT + ("n" in kinds), 1 << 16)
    watch = os.pidfd_open(parent)
    if os.getppid() != parent:
        os._exit(127)  # it is gone, and that number may be somebody else's by now
    for kind, path, _ in lines:
        if kind == "c":
            _write(f"{path}/cgroup.procs", "0")
    uid = _limit(limits)
    if "n" in kinds:
        _unshare(_CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWIPC, own_user=uid is None)
        _divide(uid, watch)
    elif kinds - {"c", "s"}:
        _unshare(_CLONE_NEWNS, own_user=uid is None)
    _arrange(lines)
    os.chdir(folder)
    # Python ignores these two, and what is ignored stays ignored in the program.
    for number in (_SIGPIPE, _SIGXFSZ):
        _LIBC.signal(number, _SIG_DFL)
    _give_up_power(uid, watch)
    for kind, code, _ in lines:
        if kind == "s":
            _filter(bytes.fromhex(code))
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


def _give_up_power(uid: int | None, watch: int) -> None:
    """Become ``uid``, for good, and die with the parent, which ``watch`` is a pidfd of."""
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # After the user was changed, which clears it.
    _LIBC.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    # A parent that died before this never sends the signal. In a process namespace getppid()
    # is 0 whoever the parent is, so a descriptor is asked.
    if select.select([watch], [], [], 0)[0]:
        os._exit(127)
    os.close(watch)


# ---------------------------------------------------------------------- namespaces


def _unshare(flags: int, *, own_user: bool) -> None:
    """Namespaces of its own; who is not root needs a user namespace for that."""
    uid, gid = os.getuid(), os.getgid()
    _check(_LIBC.unshare(flags | (_CLONE_NEWUSER if own_user else 0)), "unshare")
    if own_user:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)


def _divide(uid: int | None, watch: int) -> None:
    """Start keeper and program, report both, end. Returns in the program only."""
    ready, told = os.pipe()
    keeper = _clone()
    if not keeper:
        _keep(uid, watch, told)
    program = _clone()
    if not program:
        os.setsid()
        os.write(told, b".")
        for fd in (ready, told, _REPORT):
            os.close(fd)
        return
    os.close(told)
    # Until both left this session: whoever collects this process kills its group.
    while os.read(ready, 1):
        pass
    os.write(_REPORT, b"%d %d" % (keeper, program))
    os._exit(0)


def _clone() -> int:
    """Fork, as a child of the parent of this process. 0 in the child."""
    arguments = (ctypes.c_uint64 * 8)(_CLONE_PARENT)
    number = _LIBC.syscall(
        ctypes.c_long(_SYS_CLONE3), arguments, ctypes.c_size_t(ctypes.sizeof(arguments))
    )
    if number < 0:
        _check(number, "clone3")
    return int(number)


def _keep(uid: int | None, watch: int, told: int) -> None:
    """Be process 1 until killed. Does not return."""
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)  # the program's pipes must end when the program does
    _give_up_power(uid, watch)
    # Ignored, and so in what comes next: the kernel collects the orphans of the namespace.
    _LIBC.signal(_SIGCHLD, _SIG_IGN)
    os.write(told, b".")
    os.closerange(3, 1 << 16)
    for sleep in _KEEPERS:  # it needs less memory than this interpreter
        try:
            os.execv(sleep, ["sleep", "infinity"])  # noqa: S606 - no shell
        except OSError:
            continue  # not at this place: the next, or none
    while True:
        _LIBC.pause()


# ---------------------------------------------------------------------- the view


def _arrange(lines: list[tuple[str, str, str]]) -> None:
    """Hide and show. What is shown is held open before anything is hidden."""
    held = {path: os.open(path, os.O_PATH) for kind, path, _ in lines if kind in "rw"}
    root = ""
    for kind, path, more in lines:
        if kind == "n":
            _mount("tmpfs", path, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755,size=16m")
            root = path
        elif kind in "ht":
            options = f"mode=1777,size={more or 0}" if kind == "t" else "mode=755"
            if root:
                os.makedirs(root + path, 0o755, exist_ok=True)
            _mount("tmpfs", root + path, "tmpfs", _MS_NOSUID | _MS_NODEV, options)
        elif kind in "rw":
            _show(held[path], root + (more or path), writable=kind == "w")
        elif kind == "l" and not os.path.lexists(root + path):
            os.makedirs(os.path.dirname(root + path), 0o755, exist_ok=True)
            os.symlink(more, root + path)
        elif kind == "p":
            os.makedirs(root + path, 0o755, exist_ok=True)
            _mount("proc", root + path, "proc", _KEPT_FLAGS)
    for fd in held.values():
        os.close(fd)
    if root:
        _enter(root)


def _show(fd: int, path: str, *, writable: bool) -> None:
    source = f"/proc/self/fd/{fd}"
    if os.path.isdir(source):
        os.makedirs(path, 0o755, exist_ok=True)
    elif not os.path.lexists(path):
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(source, path, None, _MS_BIND | _MS_REC)
    if not writable:
        _protect(path)


def _protect(path: str) -> None:
    """Make what is mounted at ``path`` read-only, with all that is mounted below it."""
    wanted = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_RDONLY)
    failed = _LIBC.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        os.fsencode(path),
        ctypes.c_uint(_AT_RECURSIVE),
        wanted,
        ctypes.c_size_t(ctypes.sizeof(wanted)),
    )
    if failed:  # before Linux 5.12: the mount itself, not those below
        # What the original mount forbids cannot be left out in a user namespace.
        kept = os.statvfs(path).f_flag & _KEPT_FLAGS
        _mount(None, path, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | kept)


def _enter(root: str) -> None:
    """Make ``root`` the root, and let go of the old one with everything in it."""
    os.chdir(root)
    # Twice the same: the old root comes to lie on the new one, from where it is taken off.
    _check(_LIBC.pivot_root(b".", b"."), "pivot_root")
    _check(_LIBC.umount2(b".", _MNT_DETACH), "umount of the old root")
    os.chdir("/")
    _mount(None, "/", None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)


def _mount(source: str | None, path: str, kind: str | None, flags: int, data: str = "") -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, path, kind)]
    _check(_LIBC.mount(*words, flags, data.encode() or None), f"mount {path}")


def _filter(code: bytes) -> None:
    """Install a compiled BPF program; needs ``no_new_privs``, which is set."""
    held = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: how many, padding, and where they are.
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(held))
    done = _LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0)
    _check(done, "seccomp")


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
