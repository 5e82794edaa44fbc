"""Credentials that the operator gave, sealed for their place: tenant, provider, model."""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate.backcalls.vault import Vault
from tidegate.storage.credentials import Credentials


def seal_credentials(
    vault: Vault, tenant: str, provider: str, model_type: str, model: str, values: dict[str, Any]
) -> str:
    """``values`` for the row of that place. Called by ``tidegate credential set``."""
    return vault.seal(msgspec.json.encode(values), _about(tenant, provider, model_type, model))


def open_credentials(vault: Vault, row: Credentials) -> dict[str, Any]:
    """The reverse of :func:`seal_credentials`; SecretsUnavailable with another key."""
    about = _about(row.tenant, row.provider, row.model_type, row.model)
    values: dict[str, Any] = msgspec.json.decode(vault.unseal(row.sealed, about))
    return values


def _about(tenant: str, provider: str, model_type: str, model: str) -> str:
    return "\n".join(("credential", tenant, provider, model_type, model))
