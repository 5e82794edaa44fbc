"""Writing a package's archive: equal files give equal bytes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

_TIME = (2020, 1, 1, 0, 0, 0)
_MODE = 0o100644


def write_archive(files: Mapping[str, bytes], *, comment: bytes = b"") -> bytes:
    """A zip archive with these files in this order: deflated, no directory entries, fixed times."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = comment
        for name, content in files.items():
            # No times of the folder: two builds of the same files are the same package.
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever this runs: equal bytes
            entry.external_attr = _MODE << 16
            archive.writestr(entry, content)
    return out.getvalue()
