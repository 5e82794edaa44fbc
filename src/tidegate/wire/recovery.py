"""What can be saved of a line that the strict decoder refuses (spec/plugin/01 section 2).

Two things happen to honest plugins: half a surrogate pair in a text, and text of ``print()`` glued
to a message. Both are looked for only in lines that were refused, and each search is bounded: such
a line is a plugin's to make, and the process that looks at it serves everybody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from tidegate.wire.session import UNREADABLE, Event, decode_event

#: Escapes that one read's lines may have to be mended: each costs a call of Python, and a line of
#: five million of them stopped everybody for more than a second.
MOST_ESCAPES: Final = 128 << 10
_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F]")
#: One escape of JSON: a whole pair, a half (which is group 1), or anything else. All of them are
#: walked over: of an escaped backslash before "ud83d" only the one who reads from the front knows.
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_BEGINNING: Final = b'{"event"'
#: How many times over a line may be read in search of messages, what each costs besides (the work
#: around it takes as long as reading so much), and what a short line may cost.
_PASSES: Final = 2
_EACH: Final = 1024
_AT_LEAST: Final = 1 << 20
#: How many beginnings of no message are looked at: each costs a count of all before it.
_MISSES: Final = 32
#: Where the decoder stopped: behind a whole value, or where it is damaged.
_STOPPED: Final = re.compile(r"(trailing characters )?\(byte (\d+)\)$")


def with_whole_pairs(line: bytes) -> bytes:
    r"""The line with U+FFFD for each half of a surrogate pair (``\ud83d`` alone); else the same.

    A model that streams an emoji in two chunks gives each a half, and ``json.dumps`` writes them.
    They are no text, so the strict decoder refuses the line; one character is not worth a call.
    """
    return _ESCAPE.sub(_whole, line) if _HALF.search(line) else line


def _whole(escape: re.Match[bytes]) -> bytes:
    return escape[0] if escape[1] is None else b"\\ufffd"


def glued_events(line: bytes) -> Iterator[tuple[bytes, bytes, Event | None]]:
    """The events in a line that holds other text as well: (text before it, message, event) each.

    ``print("50%…", end="")`` glues text before the next message, or between a message and its
    newline: the message is whole and must not be lost. The last item is the rest of the line,
    without an event. A line may be made of nothing but beginnings of messages, so no more is read
    than a few times its length; what is left then is text.
    """
    view = memoryview(line)
    left, misses = _AT_LEAST + _PASSES * len(line), _MISSES
    done = start = 0
    while left > 0 and misses and (start := line.find(_BEGINNING, start)) >= 0:
        event, end = _event_at(view, start)
        left -= end - start + _EACH
        if event is None:
            misses -= 1
            start += 1
        else:
            yield line[done:start], line[start:end], event
            done = start = end
    yield line[done:], b"", None


def _event_at(line: memoryview, start: int) -> tuple[Event | None, int]:
    """The event that begins there, if one does, and how far was read to know."""
    # The decoder alone finds the end of a value without making objects of what is in it: thirty
    # MB of empty lists are a gigabyte of them. It tells the end by refusing what stands behind.
    try:
        return decode_event(line[start:]), len(line)
    except msgspec.ValidationError:
        return None, len(line)  # JSON, but no event; how far it came is not told
    except msgspec.DecodeError as error:
        stopped = _STOPPED.search(str(error))
    except (UnicodeDecodeError, TypeError, RecursionError):
        stopped = None
    if stopped is None:
        return None, len(line)
    end = start + int(stopped[2]) - 1  # it has looked at one byte of what stands behind
    if not stopped[1]:
        return None, end + 1
    try:
        # Bytes of its own: what it holds is kept, the line is not.
        return decode_event(bytes(line[start:end])), end
    except UNREADABLE:
        return None, end
