"""A source of chunks for handlers, made without a host."""

from __future__ import annotations

from tidegate.errors import CallFailed


class Given:
    """Gives these bodies, one a ``take``, then the error or the end."""

    def __init__(self, *bodies: bytes, error: CallFailed | None = None) -> None:
        self.left = list(bodies)
        self.error = error
        self.closed = False

    @property
    def ready(self) -> bool:
        return bool(self.left)

    def take(self) -> list[bytes]:
        if self.left:
            return [self.left.pop(0)]
        if self.error is not None:
            raise self.error
        return []

    def abort(self, error: CallFailed) -> None:
        self.error = error

    def close(self) -> None:
        self.closed = True
