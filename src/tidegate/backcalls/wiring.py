"""Whether Dify answers back-calls with this installation's address and key, for ``doctor``.

A wrong key is no 401 at Dify but a 404, as if the inner API were not there; without this one hears
of it at the first back-call of a plugin.
"""

from __future__ import annotations

from typing import Final

from tidegate.backcalls.inner_client import InnerClient
from tidegate.errors import BackCallFailed
from tidegate.settings import Settings

PATIENCE: Final = 5.0
#: A request that names no tenant: whoever takes the key refuses it before it does anything.
_PATH: Final = "invoke/encrypt"
_EMPTY: Final = b"{}"
_SERVER_ERRORS: Final = 500
_REASONS: Final = {
    401: "something before Dify asks for a login",
    403: "something before Dify refuses it",
    404: (
        "DIFY_INNER_API_KEY is not Dify's INNER_API_KEY_FOR_PLUGIN, or DIFY_INNER_API_URL is not "
        "the address of Dify's api"
    ),
}


def check_inner_api(settings: Settings) -> str:
    """Where Dify took the key. BackCallFailed and IdleTimeout say what is wrong instead.

    Without a ``status`` in their details nobody answered. Waits a few seconds at most.
    """
    address = settings.dify_inner_api_url
    client = InnerClient(settings, patience=PATIENCE)
    try:
        with client.post(_PATH, _EMPTY, trace=""):
            status, reason = 200, "it takes a request that Dify would refuse: is it Dify?"
    except BackCallFailed as error:
        if "status" not in error.details:
            raise
        status = error.details["status"]
        if status not in _REASONS and status < _SERVER_ERRORS:
            return f"Dify takes the key at {address}"
        reason = f"status {status}: {_REASONS.get(status, 'it is not in order')}"
    raise BackCallFailed(f"{address} answers, but {reason}", status=status)
