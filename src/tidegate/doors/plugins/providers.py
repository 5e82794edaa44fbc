"""Whose provider a back-call means, and the credentials that the operator gave for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from tidegate.backcalls.keyring import open_credentials
from tidegate.backcalls.vault import Vault
from tidegate.errors import BackCallFailed
from tidegate.installs import Catalogue
from tidegate.storage import Database, credentials, installations

#: Author of a provider that is named by one word, as Dify reads it.
_HOUSE_AUTHOR: Final = "langgenius"
_PARTS: Final = 3


@final
@dataclass(frozen=True, slots=True)
class Provider:
    """A provider of a plugin that the tenant has. ``declaration`` is its section."""

    identifier: str
    plugin_id: str
    name: str
    declaration: Mapping[str, Any]

    @property
    def full_name(self) -> str:
        """``author/name/provider``: what credentials are kept under."""
        return f"{self.plugin_id}/{self.name}"

    def model(self, name: str) -> Mapping[str, Any]:
        """The declaration of a predefined model; empty for a customizable one."""
        models = self.declaration.get("models") or ()
        return next((one for one in models if one.get("model") == name), {})


@final
class Providers:
    """Finds providers among what a tenant installed. One per host process."""

    def __init__(self, database: Database, catalogue: Catalogue, vault: Vault) -> None:
        self._database = database
        self._catalogue = catalogue
        self._vault = vault

    def find(self, tenant: str, section: str, text: str) -> Provider:
        """The provider of ``section`` that ``text`` names; BackCallFailed when there is none.

        ``text`` is ``author/name/provider``, or one word: then it is Dify's own, or else the one
        installed plugin whose provider has that name.
        """
        parts = text.split("/")
        if len(parts) == _PARTS:
            found = self._of_plugin(tenant, "/".join(parts[:2]), section, parts[2])
        elif len(parts) == 1:
            # One word is how Dify names its own providers, and workflows that were written for it
            # do.
            found = self._of_plugin(tenant, f"{_HOUSE_AUTHOR}/{text}", section, text)
            found = found or next(
                (one for one in self.all(tenant, section) if one.name == text), None
            )
        else:
            found = None
        if found is None:
            raise BackCallFailed(f"plugin not installed: no {section} provider {text[:300]!r}")
        return found

    def all(self, tenant: str, section: str) -> Iterator[Provider]:
        """Every provider of ``section`` that the tenant has, newest plugin first."""
        with self._database.read() as conn:
            plugin_ids = [one.plugin_id for one in installations.all_of_tenant(conn, tenant)]
        for plugin_id in plugin_ids:
            found = self._of_plugin(tenant, plugin_id, section, "")
            if found is not None:
                yield found

    def credentials(
        self, tenant: str, provider: Provider, model_type: str = "", model: str = ""
    ) -> dict[str, Any]:
        """What the operator set for the model, or for its provider; empty when nothing."""
        with self._database.read() as conn:
            row = credentials.find(conn, tenant, provider.full_name, model_type, model)
        return open_credentials(self._vault, row) if row is not None else {}

    def models_with_credentials(self, tenant: str, model_type: str) -> list[tuple[str, str]]:
        """(provider, model or empty) of every credential that fits the type."""
        with self._database.read() as conn:
            rows = credentials.of_tenant(conn, tenant)
        return [(one.provider, one.model) for one in rows if one.model_type in ("", model_type)]

    def _of_plugin(self, tenant: str, plugin_id: str, section: str, name: str) -> Provider | None:
        known = self._catalogue.installation(tenant, plugin_id)
        declaration = (known.declaration.get(section) if known else None) or {}
        found = str(declaration.get("provider") or _identity(declaration).get("name") or "")
        if known is None or not found or (name and name != found):
            return None
        return Provider(known.identifier, plugin_id, found, declaration)


def _identity(declaration: Mapping[str, Any]) -> Mapping[str, Any]:
    found = declaration.get("identity")
    return found if isinstance(found, dict) else {}
