"""Where things are in the store: the reference's layout (spec/http/03 section 1).

| key | content |
|---|---|
| ``plugin_packages/<identifier>`` | a package as it was uploaded |
| ``plugin/<identifier>`` | copy of the package: the mark "installed here" |
| ``assets/<id>`` | an icon; the id is the hash of its content |
"""

from __future__ import annotations

from typing import final

from tidegate.settings import Settings


@final
class Layout:
    """Keys under the prefixes that the settings name."""

    def __init__(self, settings: Settings) -> None:
        self.packages = settings.plugin_package_cache_path.strip("/")
        self.installed_ones = settings.plugin_installed_path.strip("/")
        self.assets = settings.plugin_media_cache_path.strip("/")

    def package(self, identifier: str) -> str:
        """The uploaded package."""
        return f"{self.packages}/{identifier}"

    def installed(self, identifier: str) -> str:
        """The mark of an installed package."""
        return f"{self.installed_ones}/{identifier}"

    def asset(self, asset_id: str) -> str:
        """An icon."""
        return f"{self.assets}/{asset_id}"
