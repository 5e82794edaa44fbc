"""The local key and what it encrypts: stored credentials, secrets of endpoint settings.

    tg1:<Base64 of 12 bytes nonce + AES-256-GCM of the text>

Each text is bound to its place (``about``): what was sealed for one tenant, provider or endpoint
opens nowhere else. The key is ``keys/credentials.key`` of the data folder (0600), made at first
use, or TIDEGATE_CREDENTIALS_KEY.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from functools import cached_property
from pathlib import Path
from typing import Final, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tidegate.errors import SecretsUnavailable
from tidegate.runtime.home import write_whole
from tidegate.settings import Settings

PREFIX: Final = "tg1:"
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


@final
class Vault:
    """Seals and opens texts. One per process; the key is read when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._given = settings.tidegate_credentials_key
        self._path = settings.home.keys / "credentials.key"

    def seal(self, text: bytes, about: str) -> str:
        """``text`` encrypted for the place ``about``. SecretsUnavailable when there is no key."""
        # Random, never counted: two processes with one key must not use one nonce twice.
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, text, about.encode())
        return PREFIX + base64.b64encode(nonce + sealed).decode()

    def unseal(self, sealed: str, about: str) -> bytes:
        """What :meth:`seal` was given; SecretsUnavailable when key or place are others."""
        try:
            raw = base64.b64decode(sealed.removeprefix(PREFIX), validate=True)
            return self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], about.encode())
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise SecretsUnavailable(
                f"a secret cannot be decrypted with {self._named}: was it made with another key?"
            ) from error

    @property
    def _named(self) -> str:
        return "TIDEGATE_CREDENTIALS_KEY" if self._given.reveal() else str(self._path)

    @cached_property
    def _cipher(self) -> AESGCM:
        try:
            text = self._given.reveal().encode() or self._read()
            key = base64.b64decode(text.strip(), validate=True)
        except OSError as error:
            raise SecretsUnavailable(f"{self._path}: {error.strerror}") from error
        except binascii.Error:
            key = b""
        if len(key) != _KEY_BYTES:
            raise SecretsUnavailable(f"{self._named} must be {_KEY_BYTES} bytes in Base64")
        return AESGCM(key)

    def _read(self) -> bytes:
        if not self._path.exists():
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _offer(self._path, base64.b64encode(secrets.token_bytes(_KEY_BYTES)))
        return self._path.read_bytes()


def _offer(path: Path, key: bytes) -> None:
    """Put ``key`` at ``path`` unless somebody was faster: all processes then read the same one."""
    # Linked, not renamed: a rename would replace the key that somebody else has used already.
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    write_whole(draft, key)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass  # that one is as good
    finally:
        draft.unlink()
