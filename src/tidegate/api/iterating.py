"""Streams as plain WSGI iterables, where the client's socket cannot be had: another server, TLS."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tidegate.api.streaming import OpenStreams, outcome_of
from tidegate.doors.routes import Outcome, Response, StreamResponse
from tidegate.errors import CallFailed


def iterate(
    answer: StreamResponse, streams: OpenStreams, begin: Callable[[Response | None], None]
) -> Iterator[bytes]:
    """The answer as a WSGI iterable, for servers that do not hand their socket over.

    ``begin`` is called with a plain answer, or None, before the first piece.
    """
    source = answer.source
    outcome = Outcome.CLIENT_LEFT  # a generator that is closed early says so
    # The server is told of the head with the first chunk, not before: Dify's time-out for the
    # first token counts on that (spec/dify/client.md section 1).
    begun = False
    streams.add(source)
    try:
        while True:
            try:
                bodies = source.take()
            except CallFailed as error:
                outcome = outcome_of(error)
                yield _last_piece(answer, error, None if begun else begin)
                return
            if not begun:
                begin(None)
                begun = True
            if not bodies:
                outcome = Outcome.SUCCESS
                return
            yield b"".join(answer.events(bodies))
    finally:
        streams.discard(source)
        source.close()
        answer.finished(outcome)


def _last_piece(
    answer: StreamResponse, error: CallFailed, begin: Callable[[Response | None], None] | None
) -> bytes:
    """What ends an answer that failed. ``begin`` is None where its head is sent already."""
    if begin is not None:
        plain = answer.before_head(error)
        begin(plain)
        if plain is not None:
            return plain.body
    if answer.error_event is None:
        # WSGI has no way to cut a connection but this: the server ends it, and a client that
        # counts on the last chunk sees that it never came.
        raise ConnectionAbortedError("the answer is not whole") from error
    return answer.error_event(error)
