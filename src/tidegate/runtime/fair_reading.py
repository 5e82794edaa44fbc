"""Requests are read in turns: who sends without a pause must not have the api to himself.

gevent's ``recv`` gives what is there without letting anybody else run, so Gunicorn reads - and
throws away, when nobody wants the body - for as long as a client sends faster than it is read. A
body of one-byte chunks from a client without a key stopped every stream of the process.
"""

from __future__ import annotations

from typing import Any, Final

import gevent

from tidegate.clock import GIVE_WAY

#: Reads of a connection after which all others have their turn: some 10 ms at worst.
TURN: Final = 4


def read_in_turns(unreader: Any) -> None:
    """Make Gunicorn's reader of sockets, a class, give way. Called once, before it accepts."""
    read = unreader.chunk

    def chunk(self: Any, *size: Any) -> bytes:
        self.turns = getattr(self, "turns", 0) + 1
        if self.turns % TURN == 0:
            gevent.sleep(GIVE_WAY)
        found: bytes = read(self, *size)
        return found

    unreader.chunk = chunk
