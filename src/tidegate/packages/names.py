"""Names inside a package: which are taken, and which of them would meet on some disk.

Names are raw UTF-8 whatever the archive's language flag says, as the reference reads them
(spec/plugin/08 section 1). A name that could leave the folder, or that is read in two ways by two
programs, rejects the package (T-S1).
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from typing import final

from tidegate.errors import PackageRejected

# ext4, XFS, APFS and NTFS all stop here; a longer name fails halfway through an extraction.
_LONGEST_SEGMENT = 255
_LONGEST_NAME = 1024
#: Folders of one package: 50 MB of archive hold names for ten million, which are gigabytes.
MOST_FOLDERS = 20_000
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def decode_name(raw: bytes) -> str:
    """The cleaned path of an entry (``./a//b`` is ``a/b``); PackageRejected when it is unsafe."""
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise PackageRejected(f"difypkg: the file name {raw!r} is not valid UTF-8") from None
    fault = _fault_of(name)
    if fault:
        raise PackageRejected(f"difypkg: the file name {name[:200]!r} {fault}")
    return posixpath.normpath(name)


def _fault_of(name: str) -> str:
    if not name or posixpath.normpath(name) == ".":
        return "is empty"
    # Refused and not skipped: an unpacker that makes it would have a folder that we never looked
    # at.
    if name.endswith("/"):
        return "is a directory entry: pack files only (`tidegate plugin package` does)"
    if _CONTROL.search(name):
        return "has a control character"
    # On Windows each of these is another place. A package means the same wherever it is unpacked.
    if "\\" in name or name.startswith("/") or _DRIVE.match(name):
        return "is no relative path with `/` between its parts"
    segments = name.split("/")
    if ".." in segments:
        return "leaves the package"
    if len(name.encode()) > _LONGEST_NAME:
        return "is too long"
    if any(len(part.encode()) > _LONGEST_SEGMENT for part in segments):
        return "has a part that is too long"
    return ""


@final
class NameBook:
    """All names of one package so far. Refuses what would be one file on some file system."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def add(self, name: str) -> None:
        """Note ``name``; PackageRejected when it is there already or clashes with another."""
        folded = _fold(name)
        clash = self._files.get(folded) or self._folders.get(folded)
        if clash is None:
            clash = self._note_folders(folded, name)
        if clash is not None:
            how = "is there twice" if clash == name else f"clashes with {clash!r}"
            raise PackageRejected(f"difypkg: the file {name!r} {how}")
        self._files[folded] = name

    def _note_folders(self, folded: str, name: str) -> str | None:
        """Note the folders that ``name`` is in; returns a file that has the name of one."""
        while folded := posixpath.dirname(folded):
            if folded in self._files:
                return self._files[folded]
            if folded in self._folders:
                return None
            self._folders[folded] = name
            if len(self._folders) > MOST_FOLDERS:
                raise PackageRejected(f"difypkg: more than {MOST_FOLDERS} folders are not taken")
        return None


def _fold(name: str) -> str:
    """What a case-blind, normalising file system would make of ``name``."""
    if name.isascii():
        return name.lower()
    # Decomposed before folding and composed after it, since folding can bring back what
    # normalising had removed.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKD", name).casefold())
