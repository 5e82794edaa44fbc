"""Secrets of endpoint settings, encrypted at rest (spec/http/05 section 5, spec/plugin/05 §6).

Where Dify is configured it holds the key and does the work, as with the reference; else they are
sealed with the local key. An installation that is connected to Dify later keeps what it sealed.
Settings without a ``secret-input`` are never sent anywhere. Clearing tells Dify to forget what it
keeps of an endpoint; it carries no settings.

    secrets = open_endpoint_secrets(settings)
    stored = secrets.encrypt(tenant, user, endpoint_id, values, declared)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol, final

import msgspec
from msgspec import Raw

from tidegate.backcalls.inner_client import InnerClient
from tidegate.backcalls.vault import PREFIX, Vault
from tidegate.errors import CallFailed, SecretsUnavailable
from tidegate.ids import row_id
from tidegate.settings import Settings
from tidegate.wire.inner_api import InnerApiError, reply_data, request_body

PATIENCE: Final = 15.0
"""Seconds: while Dify is asked to decrypt each endpoint of a list, it waits for the list."""
#: How a text begins that Dify encrypted: Base64 of ``HYBRID:``, and no token that a person has. It
#: must not reach a plugin as if it were one.
OF_DIFY: Final = "SFlCUklEO"
_PATH: Final = "invoke/encrypt"
Values = dict[str, Any]
Config = Iterable[Mapping[str, Any]]


class EndpointSecrets(Protocol):
    """Encrypts and decrypts settings of endpoints. Called by the endpoint routes; may wait.

    ``config`` are the declared settings (``name``, ``type``, …). What comes back is a new dict.
    SecretsUnavailable when it cannot be done; then nothing was stored or changed anywhere.
    """

    def encrypt(
        self, tenant: str, user: str, endpoint_id: str, settings: Values, config: Config
    ) -> Values:
        """``settings`` with every secret encrypted for this endpoint."""

    def decrypt(
        self, tenant: str, user: str, endpoint_id: str, settings: Values, config: Config
    ) -> Values:
        """The reverse of :meth:`encrypt`."""

    def clear(
        self, tenant: str, user: str, endpoint_id: str, settings: Values, config: Config
    ) -> None:
        """Whoever keeps decrypted settings of this endpoint forgets them."""

    def close(self) -> None:
        """Give back connections."""


def open_endpoint_secrets(settings: Settings) -> EndpointSecrets:
    """The one that the settings ask for. Called once per api process."""
    sealed = _Sealed(Vault(settings))
    if settings.backcalls == "dify":
        return _OfDify(InnerClient(settings, patience=PATIENCE), sealed)
    return sealed


def secret_names(config: Config) -> set[str]:
    """Names of the declared settings that are secrets."""
    return {str(one.get("name")) for one in config if one.get("type") == "secret-input"}


@final
class _OfDify:
    """Dify encrypts with the tenant's key. What was sealed here before it came still opens."""

    def __init__(self, client: InnerClient, sealed: _Sealed) -> None:
        self._client = client
        self._sealed = sealed

    def encrypt(
        self, tenant: str, user: str, endpoint_id: str, settings: Values, config: Config
    ) -> Values:
        return self._ask("encrypt", tenant, user, endpoint_id, settings, config)

    def decrypt(
        self, tenant: str, user: str, endpoint_id: str, settings: Values, config: Config
    ) -> Values:
        config = list(config)
        secrets = secret_names(config)
        ours = {
            name: value
            for name, value in settings.items()
            if name in secrets and _begins(value, PREFIX)
        }
        others = {name: value for name, value in settings.items() if name not in ours}
        opened = self._sealed.decrypt(tenant, user, endpoint_id, ours, config)
        if not ours or secrets & others.keys():
            others = self._ask("decrypt", tenant, user, endpoint_id, others, config)
        return {**others, **opened}

    def clear(
        self, tenant: str, user: str, endpoint_id: str, settings: Values, config: Config
    ) -> None:
        self._ask("clear", tenant, user, endpoint_id, {}, config)

    def close(self) -> None:
        self._client.close()

    def _ask(
        self, opt: str, tenant: str, user: str, endpoint_id: str, settings: Values, config: Config
    ) -> Values:
        config = [dict(one) for one in config]
        # Nothing to hide: not worth a request, and what is no secret need not leave the house.
        if not secret_names(config):
            return dict(settings)
        request: dict[str, Any] = {
            "opt": opt,
            "namespace": "endpoint",
            "identity": endpoint_id,
            "data": settings,
            "config": config,
        }
        fields = {name: Raw(msgspec.json.encode(value)) for name, value in request.items()}
        body = request_body(fields, tenant=tenant, user=user, type="encrypt")
        trace = f"00-{row_id().hex}-{row_id().hex[16:]}-01"
        try:
            with self._client.post(_PATH, body, trace=trace) as reply:
                # Dify wraps what it encrypts twice.
                return dict(msgspec.json.decode(reply_data(reply.whole(), twice=True)))
        except (CallFailed, InnerApiError) as error:
            raise SecretsUnavailable(f"failed to {opt} endpoint settings: {error}") from error


@final
class _Sealed:
    """The local key encrypts. A setting that was never encrypted comes back as it is."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def encrypt(
        self, tenant: str, user: str, endpoint_id: str, settings: Values, config: Config
    ) -> Values:
        names = secret_names(config) & settings.keys()
        sealed = {
            name: self._vault.seal(
                msgspec.json.encode(settings[name]), _about(tenant, endpoint_id, name)
            )
            for name in names
        }
        return {**settings, **sealed}

    def decrypt(
        self, tenant: str, user: str, endpoint_id: str, settings: Values, config: Config
    ) -> Values:
        opened = {}
        for name in secret_names(config) & settings.keys():
            value = settings[name]
            if _begins(value, OF_DIFY):
                raise SecretsUnavailable(
                    f"the setting {name} was encrypted by Dify: set DIFY_INNER_API_URL, or remove "
                    "the endpoint and set it up anew"
                )
            # Rows of before, or of a declaration in which it was no secret yet, hold plain text.
            if _begins(value, PREFIX):
                text = self._vault.unseal(value, _about(tenant, endpoint_id, name))
                opened[name] = msgspec.json.decode(text)
        return {**settings, **opened}

    def clear(
        self, tenant: str, user: str, endpoint_id: str, settings: Values, config: Config
    ) -> None:
        """Nobody keeps anything."""

    def close(self) -> None:
        """Holds nothing."""


def _begins(value: Any, prefix: str) -> bool:
    return isinstance(value, str) and value.startswith(prefix)


def _about(tenant: str, endpoint_id: str, name: str) -> str:
    return f"endpoint\n{tenant}\n{endpoint_id}\n{name}"
