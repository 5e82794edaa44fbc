"""Work in a greenlet of its own, while whoever began it gives signs of life."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import gevent

from tidegate.errors import TidegateError


@final
class Background[T]:
    """One such work; begins at once. Whoever made it asks for the result, or kills it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._greenlet = gevent.spawn(_value_or_error, work)

    def over(self, seconds: float) -> bool:
        """Whether it ended, waiting up to ``seconds`` for that."""
        self._greenlet.join(seconds)
        return bool(self._greenlet.ready())

    def result(self) -> T:
        """After the end: what it returned; raises what it raised."""
        outcome = self._greenlet.get()
        if isinstance(outcome, TidegateError):
            raise outcome
        return outcome  # type: ignore[no-any-return]

    def kill(self) -> None:
        """Nobody waits for it any more. Idempotent."""
        self._greenlet.kill()


def _value_or_error[T](work: Callable[[], T]) -> T | TidegateError:
    # As a value: gevent prints the traceback of what a greenlet raises, and a build that fails
    # every hour for the same reason has its own line in the log.
    try:
        return work()
    except TidegateError as error:
        return error
