"""Opening a call for a request, and what the caller is told when that or the call fails.

The same for every route that calls a plugin: before the stream an envelope with a status, in it an
event with code -500, so that Dify types it (contract.md section 3).
"""

from __future__ import annotations

from typing import Final

from tidegate.calls import Calls, PluginCall
from tidegate.doors.envelope import failure
from tidegate.doors.routes import Response, Source
from tidegate.errors import CallFailed, HostLost, InternalFailure, Overloaded, TooManyRequests
from tidegate.wire import sse

#: Dify looks for these words to tell an outage from a plugin that is not there.
NO_NODE: Final = "no available node, plugin runtime not found"


def opened(calls: Calls, call: PluginCall) -> Source:
    """The call's stream. Raises what the request is answered with when there is none."""
    try:
        return calls.plugin(call)
    except CallFailed as error:
        raise refused(error) from error


def refused(error: CallFailed) -> InternalFailure | TooManyRequests:
    """What a request is answered with whose session could not be opened."""
    if isinstance(error, Overloaded):
        return TooManyRequests(error.message, **error.details)
    # For Dify a host that is away is an outage to be tried again, not a fault of the plugin.
    if isinstance(error, HostLost):
        return InternalFailure(f"{NO_NODE}: {error.message}")
    return InternalFailure(f"failed to get plugin runtime: {error.message}")


def before_head(error: CallFailed) -> Response | None:
    """The plain answer for an error that came before the first chunk, where there is one.

    Only admission has one: it is the last moment at which a status can say when to come back.
    """
    return failure(refused(error)) if isinstance(error, Overloaded) else None


def error_event(error: CallFailed) -> bytes:
    """The event that ends a stream with ``error``."""
    return sse.error_event(sse.escape_line_ends(error.as_json()))
