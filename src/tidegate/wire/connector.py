"""What the host says to the connector, which builds and launches functions, without any I/O.

    host --POST /v1/launch-----------> connector    a package; the answer is a stream of stages
    host --GET /v1/runner/instances--> connector    whether a version has a function already

(spec/plugin/03 section 3)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import msgspec

from tidegate.errors import ConnectorFailed
from tidegate.ids import PluginIdentifier
from tidegate.wire.session import UNREADABLE

#: Longest line of a launch stream in bytes.
MOST_LAUNCH_LINE: Final = 30 << 20


def package_name(identifier: PluginIdentifier) -> str:
    """The name by which the connector knows a version."""
    author = f"{identifier.author}@" if identifier.author else ""
    return f"{author}{identifier.name}@{identifier.version}@{identifier.checksum}.difypkg"


@final
@dataclass(frozen=True, slots=True)
class Function:
    """A function that runs a plugin: where it is called, what it is called."""

    url: str
    name: str


def read_instances(body: bytes) -> Function | None:
    """The function that the connector has for a version. ConnectorFailed when it says so."""
    try:
        answer = msgspec.json.decode(body)
    except UNREADABLE:
        answer = None
    if not isinstance(answer, dict):
        raise ConnectorFailed(f"the connector's answer is no JSON object: {_shown(body)}")
    # Their case is not the same everywhere: `items`, but `Endpoint` and `Name`.
    keys = {key.lower(): value for key, value in answer.items()}
    if keys.get("error"):
        raise ConnectorFailed(f"unexpected response from plugin controller: {keys['error']}")
    items = keys.get("items") or []
    if not isinstance(items, list) or not items or not isinstance(items[0], dict):
        return None
    first = {key.lower(): value for key, value in items[0].items()}
    return Function(str(first.get("endpoint") or ""), str(first.get("name") or ""))


class _Stage(msgspec.Struct, rename="pascal"):
    stage: str = ""
    state: str = ""
    message: str = ""


_decode_stage: Final = msgspec.json.Decoder(_Stage).decode


@final
class Launch:
    """The connector's launch stream, line by line. ``function`` and ``done`` are its outcome."""

    def __init__(self) -> None:
        self.function = Function("", "")
        self.done = False

    def take(self, line: bytes) -> tuple[str, str] | None:
        """(step, message) of the installation's progress when the line tells some.

        ConnectorFailed when the launch failed. Lines that are none of the protocol are skipped.
        """
        # Some send it as server-sent events, some as bare lines.
        line = line.strip().removeprefix(b"data:")
        if not line or line.startswith(b"event:"):
            return None
        try:
            told = _decode_stage(line)
        except UNREADABLE:
            return None
        if told.state == "failed":
            raise ConnectorFailed(told.message or f"the connector failed at {told.stage}")
        if told.stage == "end":
            self.done = True
            return "ready", "Plugin launched"
        if told.stage in ("start", "build"):
            return "environment", "Building plugin..."
        if told.stage == "run" and told.state == "success":
            self.function = _function_in(told.message)
        return ("start", "Launching plugin...") if told.stage == "run" else None


def _function_in(message: str) -> Function:
    """``endpoint=<url>,name=<name>,id=<id>``; a URL may hold ``=`` and commas of its own."""
    found: dict[str, str] = {}
    key = ""
    for part in message.split(","):
        name, equals, value = part.partition("=")
        if equals and name.strip() in ("endpoint", "name", "id"):
            key = name.strip()
            found[key] = value
        elif key:
            found[key] += f",{part}"
    return Function(found.get("endpoint", ""), found.get("name", ""))


def _shown(body: bytes) -> str:
    return body[:200].decode("utf-8", "replace")
