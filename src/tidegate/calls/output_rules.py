"""Rules about what a tool or an agent strategy puts out (spec/plugin/06 section 3).

Owned by the call's consumer, like everything else of a call: variables are collected as the
consumer takes them and checked against the tool's ``output_schema`` after the last chunk of a
normal end - never on an error, a time-out or a disconnect. (The reference once let the reader
collect while the closer validated; that race killed the whole daemon.)

Modes: ``off``; ``warn`` (the stream stays as it is, a log line and a metric say what was wrong);
``enforce`` (the stream ends with OutputSchemaViolation).
"""

from __future__ import annotations

from typing import Any, Final, final

import msgspec
from gevent import getcurrent

from tidegate.calls.failures import StreamMisused
from tidegate.calls.schemas import CompiledSchema, SchemaCache, SchemaInvalid
from tidegate.errors import CallFailed, OutputSchemaViolation, ProtocolError
from tidegate.settings import Settings
from tidegate.telemetry import metrics
from tidegate.telemetry.logs import get_log
from tidegate.wire.session import UNREADABLE, head_of

log = get_log("calls")

#: Message types of tools, agent strategies and datasources (spec/plugin/04 section 3).
MESSAGE_TYPES: Final = frozenset(
    b"text file blob blob_chunk json link image image_link binary_link variable log "
    b"retriever_resources".split()
)
#: Caps on what one call may collect.
MAX_VARIABLES: Final = 1000
MAX_VARIABLE_BYTES: Final = 8 << 20
VIOLATION: Final = "tool output schema is not valid"

_PREFIX: Final = b'{"type":"'
_PREFIX_SIZE: Final = len(_PREFIX)
_LONGEST_TYPE: Final = 32


class _Chunk(msgspec.Struct):
    type: str = ""


class _Variable(msgspec.Struct):
    message: Any = None


_decode_type = msgspec.json.Decoder(_Chunk).decode
_decode_variable = msgspec.json.Decoder(_Variable).decode


@final
class OutputRules:
    """The rules of one call. Made by :class:`RuleBook`; touched by one greenlet only."""

    __slots__ = (
        "_bytes", "_mode", "_owner", "_plugin_id", "_schema", "_streamed", "_variables",
        "_violation",
    )  # fmt: skip

    def __init__(
        self, plugin_id: str, mode: str, schema: CompiledSchema | SchemaInvalid | None
    ) -> None:
        self._plugin_id = plugin_id
        self._mode = mode
        self._schema = schema if mode != "off" else None
        self._variables: dict[str, Any] = {}
        # Parts of the streamed ones, joined at the end: each join on the way copies all before it.
        self._streamed: dict[str, list[str]] = {}
        self._bytes = 0
        self._violation: str | None = None
        self._owner: Any = None

    def apply(self, bodies: list[bytes]) -> tuple[list[bytes], CallFailed | None]:
        """What may pass on of ``bodies``, and the error that ends the call after it, if any."""
        self._own()
        for index, body in enumerate(bodies):
            if self._plain(body):
                continue
            chunks = body.split(b"\n") if b"\n" in body else (body,)
            for position, chunk in enumerate(chunks):
                error = self._look_at(chunk)
                if error is not None:
                    passed = bodies[:index]
                    if position:
                        passed.append(b"\n".join(chunks[:position]))
                    return passed, error
        return bodies, None

    def finish(self) -> None:
        """The last step after a normal end. OutputSchemaViolation in mode ``enforce``."""
        self._own()
        # A tool that put out no variables promised none this time: a schema with required fields
        # would fail every run that answers in text alone.
        if self._schema is None or not (self._variables or self._violation):
            return
        violation = self._violation
        path = "$"
        if violation is None:
            if isinstance(self._schema, SchemaInvalid):
                violation = f"output_schema does not compile: {self._schema.reason}"
            else:
                found = self._schema.violation(self._collected())
                if found is None:
                    return
                path, violation = found
        self._report(path, violation)

    def _plain(self, body: bytes) -> bool:
        """Whether all chunks of ``body`` begin alike, with a type that nothing else is asked of.

        Nearly every body is: looking at its chunks one by one would cost a quarter of all that
        api does for a stream. A newline in a body always separates two chunks (JSON escapes it).
        """
        if not body.startswith(_PREFIX):
            return False
        # Bounded: a type without an end would be searched for in 32 MiB.
        end = body.find(b'"', _PREFIX_SIZE, _LONGEST_TYPE)
        kind = body[_PREFIX_SIZE : max(end, 0)]
        if kind not in MESSAGE_TYPES or (kind == b"variable" and self._schema is not None):
            return False
        return body.count(b"\n" + body[: end + 1]) == body.count(b"\n")

    def _look_at(self, chunk: bytes) -> CallFailed | None:
        if chunk.startswith(_PREFIX):
            # The SDK writes the type first, so this is nearly every chunk, and no JSON is decoded
            # for it.
            kind = chunk[_PREFIX_SIZE : chunk.find(b'"', _PREFIX_SIZE, _LONGEST_TYPE)]
        else:
            try:
                kind = _decode_type(chunk).type.encode()
            except UNREADABLE:
                kind = b""
        if kind not in MESSAGE_TYPES:
            return ProtocolError(
                "unmarshal json failed: the plugin sent a message whose type is none of "
                + ", ".join(sorted(name.decode() for name in MESSAGE_TYPES)),
                line=head_of(chunk)[:200],
            )
        if kind == b"variable" and self._schema is not None:
            self._collect(chunk)
        return None

    def _collect(self, chunk: bytes) -> None:
        if self._violation is not None:
            return
        self._bytes += len(chunk)
        # Before it is decoded: 30 MiB of empty objects would take seconds and a gigabyte.
        if self._bytes <= MAX_VARIABLE_BYTES:
            self._violation = self._decode(chunk)
        if self._bytes > MAX_VARIABLE_BYTES or len(self._variables) > MAX_VARIABLES:
            self._violation = (
                f"more than {MAX_VARIABLES} variables or {MAX_VARIABLE_BYTES} bytes of them"
            )
        if self._violation is not None:
            # Up to 8 MiB that nobody will look at again, while the call may run on for minutes.
            self._variables.clear()
            self._streamed.clear()

    def _decode(self, chunk: bytes) -> str | None:
        try:
            message = _decode_variable(chunk).message
        except UNREADABLE:
            message = None
        if not isinstance(message, dict):
            return "a variable message has no fields"
        return self._add(message)

    def _collected(self) -> dict[str, Any]:
        joined = {name: "".join(parts) for name, parts in self._streamed.items()}
        return {**self._variables, **joined}

    def _add(self, message: dict[str, Any]) -> str | None:
        name, value = message.get("variable_name"), message.get("variable_value")
        stream = message.get("stream")
        if not isinstance(name, str):
            return "variable name is not a string"
        if not isinstance(stream, bool):
            return "stream is not a boolean"
        if not stream:
            self._variables[name] = value
            # A whole value replaces what was streamed under its name.
            self._streamed.pop(name, None)
            return None
        if not isinstance(value, str):
            return "variable value is not a string"
        parts = self._streamed.get(name)
        if parts is None:
            before = self._variables.setdefault(name, "")
            parts = self._streamed[name] = [before if isinstance(before, str) else ""]
        parts.append(value)
        return None

    def _report(self, path: str, violation: str) -> None:
        metrics.OUTPUT_SCHEMA_VIOLATIONS.labels(self._plugin_id, self._mode).inc()
        log.warning(VIOLATION, plugin=self._plugin_id, mode=self._mode, path=path, why=violation)
        if self._mode == "enforce":
            raise OutputSchemaViolation(f"{VIOLATION}: {path}: {violation}", path=path)

    def _own(self) -> None:
        current = getcurrent()
        if self._owner is None:
            self._owner = current
        elif self._owner is not current:
            raise StreamMisused("output rules belong to the one greenlet that consumes the call")


@final
class RuleBook:
    """Makes the rules of a call from the plugin's declaration. One per process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._schemas = SchemaCache()

    def rules(
        self, identifier: str, plugin_id: str, name: str, output_schema: object
    ) -> OutputRules:
        """Rules for one call of the tool or strategy ``name``; its schema is compiled once."""
        mode = self._settings.output_schema_mode(plugin_id)
        schema = None
        if output_schema and mode != "off":
            schema = self._schemas.get((identifier, name), output_schema)
        return OutputRules(plugin_id, mode, schema)
