"""The access log: one line per request, cheap enough for the hot path.

The same shape as every other line (:mod:`tidegate.telemetry.logs`), but without a log record per
request: lines are joined and written once per turn of the event loop. Paths are logged without
their query, which may hold secrets (spec/http/08 section 6).
"""

from __future__ import annotations

import contextlib
import logging
import time
from datetime import datetime
from typing import Final, final

from gevent import get_hub

from tidegate.settings import Settings
from tidegate.telemetry.logs import SERVICE, json_line, quoted, zone_of

_MESSAGE: Final = "HTTP request"
_CALLER: Final = "access"


@final
class AccessLog:
    """Writes to the handlers that ``configure_logging`` made. One per api process."""

    def __init__(self, settings: Settings) -> None:
        self._zone = zone_of(settings)
        self._logger = logging.getLogger(f"{SERVICE}.{_CALLER}")
        self._line = _json_line if settings.log_output_format == "json" else _text_line
        self._lines: list[str] = []
        self._second = -1
        self._prefix = self._offset = ""

    def write(self, method: str, path: str, status: int, seconds: float, client: str) -> None:
        """One request. Its level is INFO below 400, WARN below 500, else ERROR."""
        level = logging.INFO if status < 400 else logging.WARNING if status < 500 else logging.ERROR
        if not self._logger.isEnabledFor(level):
            return
        name = "INFO" if status < 400 else "WARN" if status < 500 else "ERROR"
        line = self._line(self._now(), name, method, path, status, seconds * 1000, client)
        if not self._lines:
            # At the end of this turn: a thousand answers of a turn are one write.
            get_hub().loop.run_callback(self.flush)
        self._lines.append(line)

    def flush(self) -> None:
        """Write what waits. Called by the event loop; by hand before a process ends."""
        if not self._lines:
            return
        text = "".join(self._lines)
        self._lines.clear()
        # Past the formatter: the line is ready, and a record for it would cost as much as the
        # request.
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler):
                # A disk that is full, or a reader that left, costs lines and nothing else.
                with contextlib.suppress(OSError, ValueError):
                    handler.stream.write(text)
                    handler.flush()

    def _now(self) -> str:
        now = time.time()
        second = int(now)
        # A zone's offset is looked up once a second, not once a request.
        if second != self._second:
            self._second = second
            stamp = datetime.fromtimestamp(second, self._zone).isoformat()
            self._prefix, self._offset = stamp[:19], stamp[19:]
        return f"{self._prefix}.{int((now - second) * 1e6):06d}{self._offset}"


def _text_line(
    now: str, level: str, method: str, path: str, status: int, milliseconds: float, client: str
) -> str:
    return (
        f"{now} {level} {SERVICE} {_CALLER} {_MESSAGE} method={quoted(method)} path={quoted(path)} "
        f"status={status} latency_ms={milliseconds:.1f} client_ip={client}\n"
    )


def _json_line(
    now: str, level: str, method: str, path: str, status: int, milliseconds: float, client: str
) -> str:
    entry = {
        "attributes": {
            "client_ip": client,
            "latency_ms": round(milliseconds, 1),
            "method": method,
            "path": path,
            "status": status,
        },
        "caller": _CALLER,
        "message": _MESSAGE,
        "service": SERVICE,
        "severity": level,
        "ts": now,
    }
    return json_line(entry) + "\n"
