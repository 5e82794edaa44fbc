"""The parts of a declaration's JSON text that rows are shown with; each part keeps its bytes."""

from __future__ import annotations

from typing import final

import msgspec
from msgspec import Raw

from tidegate.errors import TidegateError

CATEGORIES = {
    "tool": "tool",
    "model": "model",
    "datasource": "datasource",
    "agent_strategy": "agent-strategy",
    "trigger": "trigger",
}
"""Kind -> category; a plugin is of the first one that it has, else an extension."""

EXTENSION = "extension"
_NULL = Raw(b"null")


class DeclarationBroken(TidegateError):
    """A stored declaration that is no JSON object, or lacks the part that its row promises."""

    error_type = "DeclarationBroken"


@final
class Parts(msgspec.Struct, frozen=True):
    """A declaration, read no deeper than needed. Made by :func:`parts_of`."""

    tool: Raw = _NULL
    model: Raw = _NULL
    agent_strategy: Raw = _NULL
    datasource: Raw = _NULL
    trigger: Raw = _NULL
    meta: Raw = Raw(b"{}")
    verified: Raw = _NULL

    def part(self, kind: str) -> bytes:
        """JSON of one provider; DeclarationBroken when there is none of that kind."""
        if not self._has(kind):
            raise DeclarationBroken(f"the declaration has no {kind}")
        return bytes(getattr(self, kind))

    @property
    def category(self) -> str:
        """What the plugin is listed as (spec/plugin/08 section 4)."""
        return next((name for kind, name in CATEGORIES.items() if self._has(kind)), EXTENSION)

    @property
    def is_verified(self) -> bool:
        """Whether the upload carried a signature that was trusted then."""
        return bytes(self.verified) == b"true"

    def _has(self, kind: str) -> bool:
        return bytes(getattr(self, kind)) != b"null"


def parts_of(text: str | None) -> Parts:
    """The parts of a declaration; DeclarationBroken when it is missing or cannot be read."""
    if not text:
        raise DeclarationBroken("there is no declaration")
    try:
        # PostgreSQL and SQLite return what an older daemon wrote; half a surrogate pair is then a
        # broken declaration, not a defect.
        return msgspec.json.decode(text.encode("utf-8", "surrogatepass"), type=Parts)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise DeclarationBroken(f"the declaration cannot be read: {error}") from error
