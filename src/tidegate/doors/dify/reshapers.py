"""The few places where a plugin's chunks change on their way to Dify (contract.md section 3).

=============  ====================================================================
LabelMender    a model schema without a label gets the model's name (errata 6)
ExpiryMender   credentials that never expire say -1, not null
=============  ====================================================================

An agent's files are put together as well: ``doors.files``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

import msgspec
from msgspec import Raw

from tidegate.doors.dify.action import Reshaper
from tidegate.doors.routes import Source
from tidegate.errors import CallFailed
from tidegate.wire.session import UNREADABLE

#: What is longer is neither a schema nor credentials, and goes on as it came: making objects of two
#: million keys holds up every other call of this process for more than a second.
_MOST: Final = 256 << 10
_encode: Final = msgspec.json.encode
_fields: Final = msgspec.json.Decoder(dict[str, Raw]).decode


@final
class Reshaped:
    """A call whose chunks go through a :class:`Reshaper`. Follows ``doors.routes.Source``."""

    def __init__(self, source: Source, reshaper: Reshaper) -> None:
        self._source = source
        self._reshaper = reshaper
        self._error: CallFailed | None = None

    @property
    def ready(self) -> bool:
        """See ``Source``."""
        return self._error is not None or self._source.ready

    def take(self) -> list[bytes]:
        """See ``Source``. What came before a chunk that ends the call is given first."""
        while self._error is None:
            bodies = self._source.take()
            if not bodies:
                self._reshaper.finish()
                return []
            passed = self._pass_on(bodies)
            if passed:
                return passed
        self._source.close()
        raise self._error

    def abort(self, error: CallFailed) -> None:
        """See ``Source``."""
        self._source.abort(error)

    def close(self) -> None:
        """See ``Source``."""
        self._source.close()

    def _pass_on(self, bodies: list[bytes]) -> list[bytes]:
        passed = []
        try:
            for body in bodies:
                for chunk in body.split(b"\n"):
                    reshaped = self._reshaper.chunk(chunk)
                    if reshaped is not None:
                        passed.append(reshaped)
        except CallFailed as error:
            self._error = error
        return passed


@final
class LabelMender:
    """Dify needs ``label.en_US`` of a model; a plugin that has none means the model's name."""

    def __init__(self, model: str) -> None:
        self._model = model

    def chunk(self, chunk: bytes) -> bytes | None:
        """See :class:`Reshaper`."""
        return _mended(chunk, self._mend)

    def finish(self) -> None:
        """See :class:`Reshaper`."""

    def _mend(self, fields: dict[str, Any]) -> bool:
        schema = fields.get("model_schema")
        if schema is None or schema == Raw(b"null"):
            return False
        shown = _fields(schema)
        label = _object(shown.get("label"))
        # Dify's model has no default for this one field and refuses the schema as a whole (errata
        # 6).
        if label.get("en_US") not in (None, Raw(b'""'), Raw(b"null")):
            return False
        name = msgspec.json.decode(shown.get("model", Raw(b'""'))) or self._model
        fields["model_schema"] = {**shown, "label": {**label, "en_US": name}}
        return True


def _object(raw: Raw | None) -> dict[str, Raw]:
    return {} if raw is None or raw == Raw(b"null") else _fields(raw)


@final
class ExpiryMender:
    """``expires_at`` as Dify takes it: a number, -1 for never."""

    def chunk(self, chunk: bytes) -> bytes | None:
        """See :class:`Reshaper`."""
        return _mended(chunk, self._mend)

    def finish(self) -> None:
        """See :class:`Reshaper`."""

    def _mend(self, fields: dict[str, Any]) -> bool:
        if fields.get("expires_at", Raw(b"null")) != Raw(b"null"):
            return False
        fields["expires_at"] = -1
        return True


def _mended(chunk: bytes, mend: Callable[[dict[str, Any]], bool]) -> bytes:
    """The chunk as ``mend`` leaves its fields; the bytes that came when it changes nothing."""
    if len(chunk) > _MOST:
        return chunk
    try:
        fields: dict[str, Any] = _fields(chunk)
        changed = mend(fields)
    except UNREADABLE:
        return chunk
    return _encode(fields) if changed else chunk
