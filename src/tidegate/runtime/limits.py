"""Open files: each stream is one, and the usual soft limit of 1,024 is far below the default."""

from __future__ import annotations

import resource
import sys

#: Beyond this a limit costs more than it gives: some programs walk over all possible descriptors.
_ENOUGH = 1 << 18


def raise_open_files(wanted: int, setting: str) -> None:
    """Raise the soft limit as far as it goes; one line on stderr when that is below ``wanted``.

    Called in Gunicorn's master (its workers inherit it) and in the host.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft != resource.RLIM_INFINITY and soft < wanted:
        print(
            f"tidegate: warning: {soft} open files are allowed, {setting} may need {wanted}: "
            "raise the limit (ulimit -n, LimitNOFILE)",
            file=sys.stderr,
            flush=True,
        )
