"""The bad actors: what each does, and what it may cost whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

_MIB = 1 << 20


@final
@dataclass(frozen=True, slots=True)
class Actor:
    """One row. ``deed`` is a deed of the plugin, or ``client`` a behaviour of the caller.

    ``kills``: the plugin's process dies, so that its other calls may end, with an error.
    """

    name: str
    did: str
    deed: str = ""
    given: Mapping[str, object] = field(default_factory=dict)
    client: str = "call"
    kills: bool = False


ACTORS = (
    Actor("nothing", "nothing: how it is without a bad actor", "pid"),
    Actor("exit", "leaves in the middle of an answer", "exit", kills=True),
    Actor("segv", "crashes as native code does", "segv", kills=True),
    Actor("orphans", "dies and leaves children behind", "orphans", kills=True),
    Actor("closed-stdout", "closes standard output and lives on", "deaf_and_dumb", kills=True),
    Actor("exception", "raises in the middle of an answer", "raise"),
    Actor("freeze", "stands still for 3 s", "freeze", {"seconds": 3}),
    Actor("burn", "uses a core for 3 s", "burn", {"seconds": 3}),
    Actor("print", "prints between the lines of the protocol", "print"),
    Actor("glued", "prints without a newline", "glued"),
    Actor("raw-bytes", "writes bytes that are no text", "bytes"),
    Actor("half-lines", "writes lines in halves and byte by byte", "half_lines"),
    Actor("long-line", "one message of 6 MiB", "long_line", {"size": 6 * _MIB}),
    Actor("endless-line", "a line of 64 MiB", "endless_line", {"size": 64 * _MIB}),
    Actor("broken-line", "a message that is cut off", "broken_line"),
    Actor("deep-line", "a message nested 10,000 times", "deep_line"),
    Actor("unknown-type", "a message of an unknown type", "unknown_type"),
    Actor("after-end", "two ends, and more after them", "after_end"),
    Actor("strangers", "messages for sessions that nobody has", "strangers"),
    Actor("stdout-flood", "16 MiB of lines of text", "stdout_flood", {"size": 16 * _MIB}),
    Actor("stderr-flood", "6 MiB on stderr without a newline", "stderr_flood", {"size": 6 * _MIB}),
    Actor(
        "slow-consumer", "a client that does not read for 4 s", "tick",
        {"count": 20000, "size": 1000}, client="silent",
    ),
    Actor(
        "leaver", "a client that resets its connection", "tick",
        {"count": 200, "pause": 0.05}, client="leave",
    ),
    Actor("half-body", "a client that sends half a body and waits", client="half_body"),
    Actor("slow-head", "a client that sends its head byte by byte", client="slow_head"),
    Actor("wrong-key", "a client without the key", client="wrong_key"),
    Actor("bad-json", "a client whose body is no JSON", client="bad_json"),
)  # fmt: skip
"""In the order in which they are played."""
