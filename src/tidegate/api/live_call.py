"""One call of a live connection: its message, its greenlet, what it tells the client."""

from __future__ import annotations

from typing import Final, Protocol, final

import msgspec
from msgspec import Raw

from tidegate.api.streaming import OpenStreams, outcome_of
from tidegate.doors.binding import BindingRefused
from tidegate.doors.dify import ACTIONS, Dispatcher
from tidegate.doors.dify.dispatch import Body
from tidegate.doors.routes import Outcome, Source, StreamResponse
from tidegate.errors import CallFailed, InternalFailure, NotFound, TidegateError
from tidegate.telemetry.logs import get_log

log = get_log("api")


class LiveMessage(Body):
    """What a client sends: a dispatch body with the call's name, or a cancel."""

    id: Raw = Raw(b"")
    plugin: str = ""
    action: str = ""
    cancel: bool = False


#: One message of a client; msgspec.MsgspecError or RecursionError when it is none.
decode_message: Final = msgspec.json.Decoder(LiveMessage).decode


class Channel(Protocol):
    """The connection as its calls see it."""

    def tell_all(self, key: bytes, name: str, values: list[bytes]) -> None:
        """Send ``{"id": key, name: value}`` for each value. OSError when the client is gone."""

    def ended(self, key: bytes) -> None:
        """The call is over and its id is free. Called once."""


@final
class Opener:
    """Opens the calls of live connections as the dispatch routes do. One per process."""

    def __init__(self, dispatcher: Dispatcher, streams: OpenStreams) -> None:
        self._dispatcher = dispatcher
        self._actions = {action.path: action for action in ACTIONS}
        self.streams = streams

    def open(self, tenant: str, message: LiveMessage) -> StreamResponse:
        """The call of a message. Raises what the dispatch route would answer."""
        action = self._actions.get(message.action)
        if action is None:
            raise NotFound(f"no such action: {message.action[:100]}")
        if not message.data:
            raise BindingRefused("data is missing")
        plugin = self._dispatcher.installed(tenant, message.plugin)
        return self._dispatcher.open(action, tenant, plugin, message)


@final
class LiveCall:
    """One call. ``run`` is its greenlet; others may only cancel it or leave it."""

    def __init__(
        self, channel: Channel, opener: Opener, tenant: str, key: bytes, message: LiveMessage
    ) -> None:
        self._channel = channel
        self._opener = opener
        self._tenant = tenant
        self._key = key
        self._message = message
        self._source: Source | None = None
        self._cancelled = False
        self._gone = False

    def cancel(self) -> None:
        """The client does not want it any more: it ends with ``end``. Never waits."""
        self._cancelled = True
        if self._source is not None:
            self._source.close()

    def leave(self) -> None:
        """The client is gone: the call ends, and nobody is told. Never waits."""
        self._gone = True
        self.cancel()

    def run(self) -> None:
        """Open the call and pass on what comes, until it ends."""
        try:
            self._tell(*self._serve())
        except OSError as error:
            log.debug("live client lost", error=str(error))
        finally:
            self._channel.ended(self._key)

    def _serve(self) -> tuple[str, bytes]:
        """How the call ended, as the last message says it. The error boundary."""
        try:
            self._forward(self._opener.open(self._tenant, self._message))
        except TidegateError as error:
            return "error", error.as_json()
        # A write that failed, not a defect: the client is gone and `run` says so.
        except OSError:
            raise
        except Exception:
            log.exception("live call failed")
            hidden = InternalFailure("internal error; the server's log says more")
            return "error", hidden.as_json()
        return "end", b"true"

    def _forward(self, answer: StreamResponse) -> None:
        source = self._source = answer.source
        outcome = Outcome.CLIENT_LEFT
        self._opener.streams.add(source)
        try:
            # The cancel came while the call was being opened, when there was no source to close
            # yet.
            if self._cancelled:
                source.close()
            while bodies := source.take():
                chunks = [chunk for body in bodies for chunk in body.split(b"\n")]
                self._tell("chunk", *chunks)
            if not self._cancelled:
                outcome = Outcome.SUCCESS
        except CallFailed as error:
            outcome = outcome_of(error)
            raise
        finally:
            self._opener.streams.discard(source)
            source.close()
            answer.finished(outcome)

    def _tell(self, name: str, *values: bytes) -> None:
        if not self._gone:
            self._channel.tell_all(self._key, name, list(values))
