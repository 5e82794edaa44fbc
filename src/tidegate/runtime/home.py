"""The data folder: where it is, its places, its keys and its locks.

    <TIDEGATE_HOME>/run/    sockets, pid files, fingerprints, locks, what was counted  0700
                    logs/   <role>.log, plugins/<author>/<name>.log      0700
                    keys/   server.key, made at the first start          0700, files 0600

Everything that can be wrong with it is refused here with one line, before a role serves.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import hmac
import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from tidegate.errors import StartRefused
from tidegate.settings import Home, Secret, Settings

#: Longest path of a unix socket on Linux, without the closing zero.
SOCKET_PATH_LIMIT = 107
# One secret, a key per use: what leaks of one opens nothing else.
_LINK_LABEL = b"tidegate link v1"
_SESSION_LABEL = b"tidegate session v1"
# SHA-256 of the keys that Dify's sample files publish.
_PUBLISHED = {
    "SERVER_KEY": "481c0ab8a6f9e9dcb9391fb1c8b649d19f493c5253e4dc20c2c32ec21875b8ab",
    "DIFY_INNER_API_KEY": "217ef27f7b2a2f8949eb2e0973f7dfa099f887427b9a6626b2395e2417239ff2",
}


def prepare_home(environ: Mapping[str, str]) -> Settings:
    """Read the settings, make the data folder and its keys. Every entry file and the CLI call it.

    Safe when several roles start at once. StartRefused (one line) for a setting that does not
    fit, a folder that cannot be written, a published key.
    """
    settings = Settings.load(environ)
    root = settings.tidegate_home or str(default_home(environ))
    settings = dataclasses.replace(settings, tidegate_home=str(Path(root).expanduser().absolute()))
    # Before a folder is made: what is refused leaves nothing behind.
    _refuse_published(settings)
    _make_folders(settings.home)
    if not settings.server_key.reveal():
        settings = dataclasses.replace(settings, server_key=_server_key(settings.home))
    return settings


def default_home(environ: Mapping[str, str]) -> Path:
    """``.tidegate`` of the checkout when run from one, else ``$XDG_DATA_HOME/tidegate``."""
    checkout = Path(__file__).resolve().parents[3]
    if (checkout / "pyproject.toml").is_file() and (checkout / "src" / "tidegate").is_dir():
        return checkout / ".tidegate"
    data = environ.get("XDG_DATA_HOME", "").strip() or "~/.local/share"
    return Path(data).expanduser() / "tidegate"


def link_key(settings: Settings) -> bytes:
    """Key with which the roles prove themselves to each other over TCP, derived from SERVER_KEY."""
    return hmac.digest(settings.server_key.reveal().encode(), _LINK_LABEL, "sha256")


def session_key(settings: Settings) -> bytes:
    """Key that signs the sessions which serverless functions answer, derived from SERVER_KEY."""
    return hmac.digest(settings.server_key.reveal().encode(), _SESSION_LABEL, "sha256")


def link_socket(settings: Settings) -> Path:
    """The host's unix socket: ``run/host.sock``, or a hashed folder below /tmp if that is too long.

    StartRefused when the folder below /tmp belongs to somebody else.
    """
    path = settings.home.run / "host.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    folder = Path(f"/tmp/tidegate-{os.getuid()}-{digest}")  # noqa: S108 - owner and mode checked
    _make_private(folder)
    return folder / "host.sock"


def take_lock(home: Home, name: str, refusal: str) -> IO[str]:
    """Hold ``run/<name>.lock`` while the answer lives; StartRefused(refusal + pid) when taken."""
    # Not truncated by opening: the pid in it is the owner's until the lock is ours.
    lock = (home.run / f"{name}.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise StartRefused(f"{refusal} (pid {owner}, data folder {home.root})") from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def write_whole(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a small file so that a reader sees all of it or the one before."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            # Before there is anything in it.
            os.fchmod(handle, mode)
            file.write(data)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _make_folders(home: Home) -> None:
    try:
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (home.run, home.logs, home.keys):
            folder.mkdir(mode=0o700, exist_ok=True)
            # Tried, not asked for: access() knows nothing of a full or read-only file system.
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise _cannot_write(home, error) from error


def _cannot_write(home: Home, error: OSError) -> StartRefused:
    return StartRefused(
        f"data folder {home.root} cannot be written ({error.strerror}): "
        "make it writable, free space, or set TIDEGATE_HOME to another folder"
    )


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    # lstat: /tmp is everybody's, and a link there may lead into a folder of somebody else.
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise StartRefused(
            f"{folder} is not a private folder of this user: remove it, "
            "or set TIDEGATE_HOME to a shorter path"
        )


def _server_key(home: Home) -> Secret:
    path = home.keys / "server.key"
    try:
        if not path.exists():
            _offer(path, secrets.token_urlsafe(32))
        key = path.read_text().strip()
    except OSError as error:
        raise _cannot_write(home, error) from error
    if not key:
        raise StartRefused(f"{path} is empty: remove it, and a new key is made at the next start")
    return Secret(key)


def _offer(path: Path, key: str) -> None:
    """Put ``key`` at ``path`` unless somebody was faster: all roles then read the same one."""
    # A link fails where a rename would replace: the key that another role has read stays the key.
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    write_whole(draft, key.encode())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _refuse_published(settings: Settings) -> None:
    given = {"SERVER_KEY": settings.server_key, "DIFY_INNER_API_KEY": settings.dify_inner_api_key}
    for name, key in given.items():
        if hashlib.sha256(key.reveal().encode()).hexdigest() != _PUBLISHED[name]:
            continue
        if not settings.tidegate_allow_published_keys:
            raise StartRefused(
                f"{name} is the one that Dify's sample files publish: set one of your own "
                "(or TIDEGATE_ALLOW_PUBLISHED_KEYS=true where nobody else can reach this)"
            )
        print(f"tidegate: warning: {name} is a published key", file=sys.stderr, flush=True)
