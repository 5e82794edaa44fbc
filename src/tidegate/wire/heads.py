"""Heads of OPEN frames: what a call over the link is about.

Two targets: ``plugin`` (a session of an installed plugin) and ``host`` (control: build, probe,
stop, figures). The payload that follows a plugin head is the complete line for the plugin's
standard input, without its newline; control has none.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate.wire.pieces import Pieces


class PluginHead(msgspec.Struct, frozen=True, tag="plugin", tag_field="to", omit_defaults=True):
    """Opens one session. ``seconds`` and ``owner`` are what is left of the call's deadline.

    ``user`` and ``trace`` (a ``traceparent``) go with its back-calls; ``depth`` counts the
    back-calls that it stands below. ``relayed``: it came by another host, and goes no further.
    """

    plugin: str
    session: str
    type: str
    action: str
    tenant: str
    seconds: float
    owner: str
    user: str = ""
    trace: str = ""
    depth: int = 0
    relayed: bool = False


class HostHead(msgspec.Struct, frozen=True, tag="host", tag_field="to", omit_defaults=True):
    """Asks the host itself for something. ``params`` belong to the operation (hosts/control).

    ``relayed``: it came by another host, and goes no further.
    """

    op: str
    params: dict[str, Any] = {}
    seconds: float = 600.0
    owner: str = "control"
    relayed: bool = False


type Head = PluginHead | HostHead

_decoder: msgspec.json.Decoder[PluginHead | HostHead] = msgspec.json.Decoder(PluginHead | HostHead)


def encode_open(head: PluginHead | HostHead, payload: bytes | Pieces = b"") -> bytes | Pieces:
    """Body of an OPEN frame; in pieces when the payload is."""
    line = msgspec.json.encode(head) + b"\n"
    return (line, *payload) if isinstance(payload, tuple) else line + payload


def decode_open(body: bytes | Pieces) -> tuple[PluginHead | HostHead, bytes | Pieces]:
    """(head, payload) of an OPEN frame's body; msgspec.MsgspecError when it is none.

    A body in pieces must have the whole head in its first one.
    """
    if isinstance(body, bytes):
        # The head is JSON on one line, so the first newline ends it, whatever the payload holds.
        head, _, payload = body.partition(b"\n")
        return _decoder.decode(head), payload
    first = bytes(body[0])
    head, _, rest = first.partition(b"\n")
    # A view: the rest of the first piece is up to a frame long.
    return _decoder.decode(head), (memoryview(first)[len(first) - len(rest) :], *body[1:])
