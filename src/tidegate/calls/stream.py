"""The stream of a call: items, then at most one error, then the end, exactly once.

Two sides. The producer (the link's reader) calls ``push``, ``fail`` and ``finish``, which never
wait. The consumer - one greenlet, the first that calls ``take`` - gets everything that is ready,
in order, through the call's output rules. Nothing here runs under a lock: in a gevent process
code runs alone until it waits, and only ``take`` waits.

    OPEN --finish/fail--> ENDED --all taken--> CLOSED
      \\----------------- close() -----------/

* ``close`` is idempotent, may come from any greenlet and wakes the consumer. It drops what was
  not taken and tells the producer to stop.
* What was pushed before the producer's end is still delivered after it.
* A push after the end or the close is dropped and counted.
* A consumer that is slower than its budget gets SlowConsumer after what it had accepted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, final

from gevent import get_hub, getcurrent
from gevent.hub import Waiter

from tidegate.calls.backlog import Backlog
from tidegate.calls.counters import COUNTERS
from tidegate.calls.failures import StreamMisused, failure_from
from tidegate.calls.output_rules import OutputRules
from tidegate.clock import SYSTEM_CLOCK
from tidegate.deadline import Budget, Deadline
from tidegate.errors import CallFailed, IdleTimeout, SlowConsumer
from tidegate.telemetry.logs import get_log

log = get_log("calls")


class Upstream(Protocol):
    """Where the stream comes from: told once that nobody listens any more."""

    def cancel(self) -> None:
        """Idempotent; must not wait."""


@final
class Stream:
    """What comes back from one call. Made by :class:`tidegate.calls.Calls`."""

    __slots__ = (
        "_backlog", "_closed", "_deadline", "_ended", "_error", "_idle",
        "_owner", "_pushed_at", "_rules", "_timer", "_upstream", "_waiter",
    )  # fmt: skip

    def __init__(
        self,
        deadline: Deadline,
        budget: Budget,
        *,
        rules: OutputRules | None = None,
        spool_folder: Path | None = None,
        idle_seconds: float = 0.0,
    ) -> None:
        self._deadline = deadline
        self._backlog = Backlog(budget, spool_folder)
        self._rules = rules
        self._idle = idle_seconds
        self._pushed_at = SYSTEM_CLOCK.monotonic() if idle_seconds else 0.0
        self._error: CallFailed | None = None
        self._ended = False
        self._closed = False
        self._owner: Any = None
        self._waiter: Waiter | None = None
        self._upstream: Upstream | None = None
        self._timer = get_hub().loop.timer(self._timer_seconds())
        self._timer.start(self._timed_out)
        COUNTERS.opened += 1

    # ------------------------------------------------------------------ producer

    def push(self, body: bytes) -> None:
        """One or more chunks, joined by newlines. Called by the link's reader."""
        # The link's reader serves every call of the process. It must not be told off for what one
        # of them did: late frames are normal (a cancel crosses them on the wire).
        if self._ended or self._closed:
            COUNTERS.dropped += 1
            return
        try:
            taken = self._backlog.push(body)
        except OSError as error:
            # A full disk costs the calls that need it, and none of those that fit into memory.
            log.error("spool file not written; its call ends", error=str(error))
            taken = False
        if not taken:
            self._too_slow(self._backlog.waiting + len(body))
            return
        # After the append: a body that was refused is no sign of life.
        if self._idle:
            self._pushed_at = SYSTEM_CLOCK.monotonic()
        self._wake()

    def fail(self, error: bytes) -> None:
        """The producer's error; what was pushed before is delivered first. The first one counts."""
        self._fail(failure_from(error))

    def finish(self) -> None:
        """The producer's end. Idempotent."""
        if not self._ended:
            self._ended = True
            self._wake()

    # ------------------------------------------------------------------ consumer

    def take(self) -> list[bytes]:
        """Wait, then everything that is ready; ``[]`` is the normal end.

        Raises what ended the call otherwise: PluginFailed with the plugin's own error, or a
        CallFailed of ours. Only the call's one consumer may call it: StreamMisused.
        """
        self._own()
        while True:
            bodies = self._ready()
            if bodies:
                bodies = self._through_rules(bodies)
                if bodies:
                    return bodies
            # Before the end: a closed stream is over for its consumer whatever its error says.
            elif self._closed:
                return self._finished(None)
            elif self._ended:
                return self._finished(self._error)
            else:
                self._wait()

    def close(self) -> None:
        """Nobody listens any more. Idempotent, from any greenlet, never waits."""
        if self._closed:
            return
        self._closed = True
        # An upstream that ended by itself has forgotten the call: there is nobody to cancel.
        ended_before, self._ended = self._ended, True
        self._backlog.drop()
        self._timer.stop()
        self._timer.close()
        COUNTERS.closed += 1
        if self._upstream is not None and not ended_before:
            self._upstream.cancel()
        self._wake()

    def attach(self, upstream: Upstream) -> None:
        """Say where the stream comes from. Called once by Calls, right after opening."""
        self._upstream = upstream
        # The caller was gone, or its time over, before the call was even opened. Of one that the
        # host has ended itself there is nothing to cancel, and this does nothing.
        if self._closed or self._ended:
            upstream.cancel()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called, by whomever."""
        return self._closed

    @property
    def ready(self) -> bool:
        """Whether :meth:`take` would not wait: more is there, or the end is known.

        For a consumer that sends the last chunk and the end in one write.
        """
        return self._ended or self._closed or bool(self._backlog)

    def abort(self, error: CallFailed) -> None:
        """End the call from our side with ``error`` (drain, live cancel). From any greenlet."""
        self._fail(error)
        if self._upstream is not None:
            self._upstream.cancel()

    # ------------------------------------------------------------------ inside

    def _fail(self, error: CallFailed) -> None:
        if not self._ended:
            self._ended = True
            self._error = error
            self._wake()

    def _own(self) -> None:
        current = getcurrent()
        if self._owner is None:
            self._owner = current
        elif self._owner is not current:
            raise StreamMisused("a stream is read by the one greenlet that consumes its call")

    def _ready(self) -> list[bytes]:
        try:
            return self._backlog.take()
        except OSError as error:
            # A hole in the stream is worse than its end.
            log.error("spool file not read; its call ends", error=str(error))
            self._cut_off(CallFailed(f"what waited on disk for this call cannot be read: {error}"))
            return []

    def _through_rules(self, bodies: list[bytes]) -> list[bytes]:
        if self._rules is None:
            return bodies
        passed, error = self._rules.apply(bodies)
        if error is not None:
            self._cut_off(error)  # a rule of ours
        return passed

    def _cut_off(self, error: CallFailed) -> None:
        """End the call with ``error``; nothing that was pushed and not taken is delivered."""
        self._backlog.drop()
        self._ended = True
        self._error = error
        if self._upstream is not None:
            self._upstream.cancel()

    def _finished(self, error: CallFailed | None) -> list[bytes]:
        was_closed = self._closed
        self.close()
        if error is None and self._rules is not None and not was_closed:
            # After the close: the check may take a second in pieces, and needs nothing of what was
            # held for the call.
            rules, self._rules = self._rules, None
            rules.finish()
        if error is not None:
            raise error
        return []

    def _wait(self) -> None:
        self._waiter = waiter = Waiter()
        try:
            waiter.get()
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            # Not a switch right here: the producer would stand still until the consumer waits
            # again, and with it every other call of this link.
            get_hub().loop.run_callback(waiter.switch, None)

    def _too_slow(self, waiting: int) -> None:
        COUNTERS.slow += 1
        self.abort(
            SlowConsumer(
                f"the caller reads too slowly: {waiting} bytes wait for it "
                "(TIDEGATE_CALL_MEMORY and TIDEGATE_CALL_SPOOL)",
                bytes=waiting,
            )
        )

    def _timer_seconds(self) -> float:
        left = self._deadline.remaining()
        if self._idle:
            left = min(left, self._pushed_at + self._idle - SYSTEM_CLOCK.monotonic())
        return max(0.001, left)

    # The idle limit is not armed anew by each chunk: a timer of libev costs more than a chunk. It
    # is looked at when it would strike, and armed for what is left.
    def _timed_out(self) -> None:
        if self._deadline.expired():
            self.abort(self._deadline.error())
        elif self._idle and SYSTEM_CLOCK.monotonic() - self._pushed_at >= self._idle:
            self.abort(
                IdleTimeout(
                    f"nothing came for {self._idle:g} s (TIDEGATE_CALL_IDLE)",
                    seconds=self._idle,
                    owner="TIDEGATE_CALL_IDLE",
                )
            )
        else:
            self._rearm()

    def _rearm(self) -> None:
        self._timer.close()
        self._timer = get_hub().loop.timer(self._timer_seconds())
        self._timer.start(self._timed_out)
