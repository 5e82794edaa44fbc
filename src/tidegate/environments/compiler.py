"""Runs in an environment's own Python: byte-compiles all that is installed there, once per text.

    python -I -S compiler.py TREE STORE WORKERS

Compiling is by far the most of what a build costs, and most plugins bring the same libraries. So
what was compiled is kept in ``STORE`` under the digest of its source text and linked (or copied)
from there the next time. By the text and not by a package's name or RECORD, which are the
package's own claims: one that lies must not get its code into another's environment.

With ``-S`` nothing of the tree is executed: no ``.pth`` file is looked at. The files say that
they are valid without a look at the source (PEP 552), whose time differs from tree to tree; an
environment never changes once it is built.

It says how far it is: a build that says nothing for PYTHON_ENV_INIT_TIMEOUT is taken for stuck,
and a big library on a busy machine compiles for longer than that.
"""

from __future__ import annotations

import hashlib
import importlib.util
import marshal
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

_SKIPPED = {"__pycache__", ".git", "node_modules"}
_UNCHECKED_HASH = 0b01  # flags of PEP 552
_TELL = 500  # files of one process


def main(tree: str, store: str, workers: int) -> None:
    """Compile ``tree`` with so many processes. What does not compile is left as it is."""
    warnings.simplefilter("ignore")  # of a library's old syntax; nobody here can mend it
    kept = Path(store, f"{sys.implementation.cache_tag}-{importlib.util.MAGIC_NUMBER.hex()}")
    kept.mkdir(mode=0o755, parents=True, exist_ok=True)
    share = 0
    for number in range(1, workers):
        if os.fork() == 0:
            share = number
            break
    for count, source in enumerate(_sources(tree)):
        if count % workers == share:
            _compile(source, kept)
            if count // workers % _TELL == _TELL - 1:
                print(f"compiled {count + 1} files", flush=True)  # flushed: os._exit below does not
    if share:
        os._exit(0)
    while workers > 1:
        os.wait()
        workers -= 1


def _sources(tree: str) -> Iterator[str]:
    for folder, folders, files in os.walk(tree):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        yield from (os.path.join(folder, name) for name in sorted(files) if name.endswith(".py"))


def _compile(source: str, kept: Path) -> None:
    target = importlib.util.cache_from_source(source)
    try:
        with open(source, "rb") as file:
            text = file.read()
        stored = kept / hashlib.sha256(text).hexdigest()
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if not stored.exists():
            _write(stored, _compiled(text, source))
        else:
            os.utime(stored)  # still of use: see Environments.sweep
        _place(stored, target)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return  # not for this Python, or hostile: an import will say so, if anybody imports it


def _compiled(text: bytes, source: str) -> bytes:
    code = compile(text, source, "exec", dont_inherit=True, optimize=0)
    head = importlib.util.MAGIC_NUMBER + (_UNCHECKED_HASH).to_bytes(4, "little")
    return head + importlib.util.source_hash(text) + marshal.dumps(code)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def _place(stored: Path, target: str) -> None:
    """By a link where the file system and the owner of the store allow it."""
    if os.path.exists(target):
        os.unlink(target)
    try:
        os.link(stored, target)
    except OSError:
        with open(target, "wb") as file:
            file.write(stored.read_bytes())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
