"""Errors that came over the link, as exceptions again.

Ours come back as the class they were raised with; whatever else a plugin says about itself is a
:class:`PluginFailed`, whose bytes pass through unchanged (callers map on the plugin's names).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tidegate.errors import CallFailed
from tidegate.wire.session import UNREADABLE


class _Error(msgspec.Struct):
    error_type: str = "PluginFailed"
    message: str = ""
    args: Any = None


class StreamMisused(RuntimeError):
    """A second greenlet touched what belongs to a call's one consumer. A bug of ours."""


class PluginFailed(CallFailed):
    """The plugin's own error. ``raw`` is its JSON ``{error_type, message, args}``, untouched."""

    def __init__(self, raw: bytes, error_type: str, message: str) -> None:
        super().__init__(message)
        self.raw = raw
        self.plugin_error_type = error_type

    def as_json(self) -> bytes:
        return self.raw


def _classes(root: type[CallFailed]) -> dict[str, type[CallFailed]]:
    known = {}
    for cls in root.__subclasses__():
        # Only those that may travel. Subclasses elsewhere (of doors, of tests) are never sent, and
        # importing them must not change what a plugin's words are taken for.
        if cls.__module__ == "tidegate.errors":
            known[cls.error_type] = cls
            known.update(_classes(cls))
    return known


_OURS = _classes(CallFailed)
_decode: Final = msgspec.json.Decoder(_Error).decode


def failure_from(raw: bytes) -> CallFailed:
    """The exception for the body of an ERROR frame. Never raises, whatever the bytes are."""
    try:
        error = _decode(raw)
    except UNREADABLE:
        text = raw[:1024].decode("utf-8", "replace")
        wrapped = msgspec.json.encode({"error_type": "PluginFailed", "message": text, "args": None})
        return PluginFailed(wrapped, "PluginFailed", text)
    cls = _OURS.get(error.error_type)
    # A plugin may use one of our names with whatever args: what does not have our shape stays its
    # own.
    if cls is None or not isinstance(error.args, dict | None):
        return PluginFailed(raw, error.error_type, error.message)
    return cls(error.message, **{str(key): value for key, value in (error.args or {}).items()})
