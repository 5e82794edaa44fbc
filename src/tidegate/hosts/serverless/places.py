"""Which host has the session of a function: sealed in the id that the function knows it by.

    <session>~<place, encrypted>.<signature>       place: owner and address of that host's link

A function's back-call comes to any api process, and so to any host; its session is at the host
that called the function. The id brings the way there along, so no row is written for a call. It is
encrypted since a plugin's code sees it, and where our hosts are is none of its business.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from typing import Final, final

import msgspec

from tidegate.hosts.neighbours import address_of, check_reachable, owner_of
from tidegate.runtime import home
from tidegate.settings import Settings
from tidegate.wire.serverless import sign_session

_MARK: Final = "~"
_LABEL: Final = b"place of a session"
_NONCE: Final = 12


@final
class Places:
    """Signs sessions of this host, and reads where those of others are. One per host."""

    def __init__(self, settings: Settings) -> None:
        # Only where plugins are functions: it brings several MiB along.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._key = home.session_key(settings)
        self._place = (owner_of(settings), address_of(settings))
        self._cipher = AESGCM(hashlib.sha256(_LABEL + self._key).digest())
        # Once per host: the place is the same for all sessions, and a call costs no sealing.
        nonce = os.urandom(_NONCE)
        place = msgspec.json.encode(self._place)
        sealed = nonce + self._cipher.encrypt(nonce, place, _LABEL)
        self._suffix = _MARK + base64.urlsafe_b64encode(sealed).decode()

    def signed(self, session: str) -> str:
        """The id of ``session``, which is this host's, for its function."""
        return sign_session(self._key, session + self._suffix)

    def elsewhere(self, signed: str) -> str:
        """Address of the host whose session that is; empty for one of this host, or of none.

        HostLost when that host cannot be reached from here.
        """
        owner, address = self._opened(signed)
        # Both: containers may have one name and one data folder, and be two hosts.
        if not owner or (owner, address) == self._place:
            return ""
        check_reachable("the session of this back-call is", owner, address)
        return address

    def _opened(self, signed: str) -> tuple[str, str]:
        from cryptography.exceptions import InvalidTag

        sealed = signed.rpartition(".")[0].rpartition(_MARK)[2]
        try:
            raw = base64.urlsafe_b64decode(sealed)
            place = self._cipher.decrypt(raw[:_NONCE], raw[_NONCE:], _LABEL)
            return msgspec.json.decode(place, type=tuple[str, str])
        except (InvalidTag, binascii.Error, ValueError, msgspec.MsgspecError):
            return "", ""  # made by nobody who has our key: such a session is not found
