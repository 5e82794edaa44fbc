"""Messages as rows keep them: what processes said may be long, binary and cut anywhere."""

from __future__ import annotations

LIMIT = 1024
"""Bytes of a kept message (spec/http/02 section 5)."""


def shortened(message: str) -> str:
    """At most LIMIT bytes and a mark: head and tail, never half a character, no NUL.

    Head and tail, because the reason of a failure stands at the end of its stack trace.
    """
    # PostgreSQL takes no NUL in a text, and a plugin's stderr may hold any byte.
    data = message.replace("\0", "").encode("utf-8", "replace")
    if len(data) <= LIMIT:
        return data.decode()
    half = LIMIT // 2
    head, tail = data[:half].decode("utf-8", "ignore"), data[-half:].decode("utf-8", "ignore")
    return f"{head}...{tail}"
