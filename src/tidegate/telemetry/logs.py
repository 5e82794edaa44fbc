"""Structured logs: a constant message and fields, one line each, text or JSON.

    log = get_log("hosts")
    log.info("instance ready", plugin="acme/weather", ms=42)

JSON lines have the shape of the reference's (spec/http/07 section 8). Secrets have a type of
their own (:class:`tidegate.settings.Secret`) that prints as ``***``.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO, final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tidegate.errors import SettingInvalid
from tidegate.settings import Settings

SERVICE = "tidegate"
_WORD = re.compile(r"[!#-<>-~]+")
# Blanks, quotes and = would make two fields of one for whoever takes the line apart.
_BREAKS = re.compile(r'[ "=]|^$')
_LEVELS = {"DEBUG": 10, "INFO": 20, "WARN": 30, "ERROR": 40}
_NAMES = {10: "DEBUG", 20: "INFO", 30: "WARN", 40: "ERROR", 50: "ERROR"}


@final
class Log:
    """A named logger that takes fields. Made by :func:`get_log`; cheap when the level is off."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"{SERVICE}.{name}")

    def debug(self, message: str, **fields: Any) -> None:
        """What only somebody who debugs wants to see."""
        self._write(10, message, fields)

    def info(self, message: str, **fields: Any) -> None:
        """What happened, once per event worth telling."""
        self._write(20, message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        """What went wrong without costing a caller anything."""
        self._write(30, message, fields)

    def error(self, message: str, **fields: Any) -> None:
        """What cost somebody something."""
        self._write(40, message, fields)

    def exception(self, message: str, **fields: Any) -> None:
        """:meth:`error` with the traceback of the exception that is being handled."""
        self._write(40, message, fields, exc_info=True)

    def _write(
        self, level: int, message: str, fields: dict[str, Any], *, exc_info: bool = False
    ) -> None:
        # Asked first: fields are made on the way of calls, and most levels are off.
        if self._logger.isEnabledFor(level):
            self._logger.log(
                level, message, extra={"fields": fields}, exc_info=exc_info, stacklevel=3
            )


def get_log(room: str) -> Log:
    """The log of one room."""
    return Log(room)


class _Formatter(logging.Formatter):
    """Common to both shapes: the time with its zone, and the fields of a record."""

    def __init__(self, zone: ZoneInfo) -> None:
        super().__init__()
        self._zone = zone

    def _when(self, record: logging.LogRecord) -> str:
        return datetime.fromtimestamp(record.created, self._zone).isoformat(timespec="microseconds")

    @staticmethod
    def _fields(record: logging.LogRecord) -> dict[str, Any]:
        fields: dict[str, Any] = getattr(record, "fields", {})
        return fields


class TextFormatter(_Formatter):
    """``<time> <LEVEL> <service> <caller> message key=value …``"""

    def format(self, record: logging.LogRecord) -> str:
        parts = [
            self._when(record),
            _NAMES.get(record.levelno, record.levelname),
            SERVICE,
            f"{record.filename}:{record.lineno}",
            continued(record.getMessage()),
        ]
        parts += [f"{key}={quoted(value)}" for key, value in self._fields(record).items()]
        line = " ".join(parts)
        if record.exc_info:
            line += continued("\n" + self.formatException(record.exc_info))
        return line


class JsonFormatter(_Formatter):
    """One JSON object a line, keys sorted."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "ts": self._when(record),
            "severity": _NAMES.get(record.levelno, record.levelname),
            "service": SERVICE,
            "caller": f"{record.filename}:{record.lineno}",
            "message": record.getMessage(),
            "attributes": {key: _plain(value) for key, value in self._fields(record).items()},
        }
        if record.exc_info:
            entry["stack_trace"] = self.formatException(record.exc_info)
        return json_line(entry)


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        # A Secret is a str whose own text is shown by json; str() of it is "***".
        return str(value)
    return value if isinstance(value, int | float | bool | None) else str(value)


def quoted(value: Any) -> str:
    """A field's value in a line of text: quoted where it would not stay one word.

    Whatever is not printable is escaped, so that a value can neither end the line nor colour it.
    """
    text = str(value)
    # Nearly all values are one word of ASCII: decided without a look at Unicode.
    if _WORD.fullmatch(text) or (text.isprintable() and not _BREAKS.search(text)):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def continued(text: str) -> str:
    """Several lines, of which only the first begins where lines of the log begin.

    Exceptions quote what strangers sent, line breaks and all: nobody may write our next line.
    """
    first, *rest = text.splitlines() or [""]
    return "\n    ".join(_escaped(line) for line in (first, *rest))


def _escaped(line: str) -> str:
    return line if line.isprintable() else json.dumps(line)[1:-1]


def json_line(entry: dict[str, Any]) -> str:
    """One line, whatever is in it: JSON leaves C1 controls and U+2028 as they are, which end lines
    and move cursors, and a lone surrogate could not be written at all.
    """
    text = json.dumps(entry, sort_keys=True, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(entry, sort_keys=True)


def zone_of(settings: Settings) -> ZoneInfo:
    """The zone of times in logs. StartRefused (one line) when SERVER_TZ names none."""
    try:
        return ZoneInfo(settings.server_tz)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SettingInvalid(
            f"SERVER_TZ takes an IANA zone such as UTC or Europe/Paris, not {settings.server_tz!r}"
        ) from None


def configure_logging(settings: Settings, stream: TextIO | None = None) -> None:
    """Send all logs to standard output (and LOG_FILE). Called once by each role's entry file."""
    formatter: logging.Formatter
    zone = zone_of(settings)
    formatter = JsonFormatter(zone) if settings.log_output_format == "json" else TextFormatter(zone)
    handlers: list[logging.Handler] = [logging.StreamHandler(stream or sys.stdout)]
    if settings.log_file:
        path = settings.home.below(settings.log_file)
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path))
    # Else each line that a full disk does not take is twenty on standard error.
    logging.raiseExceptions = settings.debug
    root = logging.getLogger()
    # Those of Gunicorn, Celery or an earlier call: a line must not be written twice.
    for handler in list(root.handlers):
        root.removeHandler(handler)
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    # Libraries tell at INFO of each request of theirs, with its whole address.
    root.setLevel(logging.WARNING)
    logging.getLogger(SERVICE).setLevel(
        logging.DEBUG if settings.debug else _LEVELS[settings.log_level]
    )
