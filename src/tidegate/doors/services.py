"""What doors work with: the rooms below them, composed once per process by ``api``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from tidegate.settings import Settings

if TYPE_CHECKING:  # a door's rows can be read without loading the rooms behind them
    from tidegate.backcalls.endpoint_secrets import EndpointSecrets
    from tidegate.calls import Calls, RuleBook
    from tidegate.installs import Catalogue, Installer, StoredPackages
    from tidegate.storage import Database
    from tidegate.storage.blobs import BlobStore


@final
@dataclass(frozen=True, slots=True)
class Services:
    """Handed to every door's ``…_routes`` function; lives as long as the process."""

    settings: Settings
    database: Database
    blobs: BlobStore
    catalogue: Catalogue
    installer: Installer
    calls: Calls
    rules: RuleBook
    stored: StoredPackages
    secrets: EndpointSecrets

    def close(self) -> None:
        """Give back every connection, file and greenlet. For a process that lives on (tests)."""
        self.calls.stop()
        self.installer.close()
        self.catalogue.close()
        self.secrets.close()
        self.database.dispose()
