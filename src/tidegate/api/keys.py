"""Who may ask: the key of a request, compared in constant time, and guessers held off."""

from __future__ import annotations

import hmac
import math
from typing import Any, Final, final

from tidegate.api.guessing import Guesses
from tidegate.doors.routes import Auth
from tidegate.errors import TooManyGuesses, Unauthorized
from tidegate.settings import Settings
from tidegate.telemetry import metrics
from tidegate.telemetry.logs import get_log

log = get_log("api")

_HEADERS: Final = {Auth.KEY: "HTTP_X_API_KEY", Auth.ADMIN: "HTTP_X_ADMIN_API_KEY"}


@final
class Keys:
    """The keys of this process and who guessed at them. One per application."""

    def __init__(self, settings: Settings) -> None:
        self._keys = {
            Auth.KEY: settings.server_key.reveal().encode(),
            Auth.ADMIN: settings.admin_api_key.reveal().encode(),
        }
        self._guesses = {auth: Guesses() for auth in self._keys}

    def require(self, auth: Auth, environ: dict[str, Any]) -> None:
        """Called for each request. Unauthorized, or TooManyGuesses with when to try again."""
        key = self._keys.get(auth)
        if key is None:
            return
        guesses, address = self._guesses[auth], environ.get("REMOTE_ADDR", "")
        pause = guesses.blocked(address)
        if not pause:
            # As bytes, since compare_digest takes texts of ASCII only and raises for a key with an
            # umlaut.
            given = environ.get(_HEADERS[auth], "").encode("latin-1", "replace")
            # An empty key is none: without that check a missing header would open the admin
            # routes.
            if key and hmac.compare_digest(given, key):
                guesses.succeeded(address)
                return
            pause = guesses.failed(address)
            if not pause:
                metrics.REQUESTS_REFUSED.labels("unauthorized").inc()
                raise Unauthorized("unauthorized")
            log.warning("many wrong keys", address=address, asked=auth.value, pause=pause)
        metrics.REQUESTS_REFUSED.labels("guessing").inc()
        raise TooManyGuesses(
            "too many wrong keys from this address: try again later",
            retry_after=math.ceil(pause),
        )
