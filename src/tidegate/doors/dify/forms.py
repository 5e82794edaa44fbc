"""What the management routes take (spec/http/01 section 3), as typed forms with their rules."""

from __future__ import annotations

from typing import Any

from tidegate.doors.binding import IDENTIFIER, REQUIRED, Form, at_most


class TaskForm(Form):
    """One install task."""

    id: str = ""


class TaskEntryForm(Form):
    """One plugin of a task. The identifier is the rest of the path, slashes included."""

    id: str = ""
    identifier: str = ""


class IdentifierForm(Form):
    """One plugin version."""

    plugin_unique_identifier: str = ""
    rules = {"plugin_unique_identifier": (REQUIRED, IDENTIFIER)}


class InstallForm(Form):
    """Versions to install. ``metas`` has an entry for each; null entries count as empty."""

    plugin_unique_identifiers: list[str] | None = None
    source: str = ""
    metas: list[dict[str, Any] | None] | None = None
    rules = {
        "plugin_unique_identifiers": (REQUIRED, at_most(64)),
        "source": (REQUIRED, at_most(63)),
    }
    items = {"plugin_unique_identifiers": (IDENTIFIER,)}


class UninstallForm(Form):
    """One installation of the tenant."""

    plugin_installation_id: str = ""
    rules = {"plugin_installation_id": (REQUIRED,)}
