"""Does a role serve already? Asked by the supervisor, which must never wait for the answer.

``run/<role>.json`` with the pid of the role's process, or below it that of its guard, is written
when host, worker and beat serve. api has to answer ``/health/check``: one question is kept open
until it does, since Gunicorn's master listens long before its worker answers.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Protocol, final

from tidegate.settings import Settings

_QUESTION = b"GET /health/check HTTP/1.0\r\nHost: localhost\r\n\r\n"


class Readiness(Protocol):
    """One role's test. Made once per role; ``forget`` when the process ended."""

    def ask(self, pid: int) -> bool:
        """Whether the process with ``pid`` serves. Waits for next to nothing: 0.2 s at worst."""

    def forget(self) -> None:
        """The process is gone: the next one is asked anew."""


@final
class WroteFingerprint:
    """host, worker, beat: the file is there, and it is this process's."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, pid: int) -> bool:
        """See Readiness."""
        try:
            found = json.loads(self._path.read_bytes())
            # The host's own parent is its guard, and that is the process that was started.
            return pid in (found["pid"], found.get("ppid"))
        except (FileNotFoundError, ValueError, KeyError):
            return False

    def forget(self) -> None:
        """Nothing is kept; a file that a killed process left names another pid."""


@final
class AnswersHealth:
    """api: the question was answered with 200."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._open: socket.socket | None = None

    def ask(self, pid: int) -> bool:
        """See Readiness. A refused or broken connection is asked again the next time."""
        del pid
        try:
            if self._open is None:
                self._open = socket.create_connection(self._address, timeout=0.2)
                self._open.sendall(_QUESTION)
                self._open.setblocking(False)
            # Enough for the status line; the rest goes with the connection.
            answer = self._open.recv(64)
        except BlockingIOError:
            return False
        except OSError:
            answer = b""
        self.forget()
        return b" 200 " in answer

    def forget(self) -> None:
        """Take the question back."""
        if self._open is not None:
            self._open.close()
            self._open = None


def readiness(name: str, settings: Settings) -> Readiness:
    """The test of one role."""
    if name == "api":
        return AnswersHealth(api_address(settings))
    return WroteFingerprint(settings.home.run / f"{name}.json")


def api_address(settings: Settings) -> tuple[str, int]:
    """Where a process of this machine reaches the api."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared
    return everywhere.get(settings.server_host, settings.server_host), settings.server_port
