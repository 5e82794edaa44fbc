"""Uploading and installing one package over the HTTP API, as any client would."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from tidegate.cli.client import Client

#: Seconds between two looks at an install task; Dify polls it as well.
POLL = 0.3


def upload(client: Client, name: str, data: bytes) -> str:
    """Upload a package and give its unique identifier. ClickException says what is broken."""
    answer = client.upload("management/install/upload/package", "dify_pkg", name, data)
    return str(answer["unique_identifier"])


def install(client: Client, identifier: str, step: Callable[[str], None]) -> bool:
    """Install what was uploaded and wait for it. False when it was installed already.

    ClickException with the reason when the install task fails.
    """
    answer = client.post(
        "management/install/identifiers",
        {"plugin_unique_identifiers": [identifier], "source": "package", "metas": [{}]},
    )
    if answer["all_installed"]:
        _same_version(client, identifier)
        return False
    _wait(client, str(answer["task_id"]), step)
    return True


def upgrade(client: Client, identifier: str, step: Callable[[str], None]) -> str:
    """Move the tenant to what was uploaded, and wait for it; the version that it had before.

    ClickException when it has none, and with the reason when the install task fails.
    """
    before = str(find(client, identifier.split(":", 1)[0])["plugin_unique_identifier"])
    if before != identifier:
        versions = {
            "original_plugin_unique_identifier": before,
            "new_plugin_unique_identifier": identifier,
        }
        answer = client.post(
            "management/install/upgrade", {**versions, "source": "package", "meta": {}}
        )
        if not answer["all_installed"]:
            _wait(client, str(answer["task_id"]), step)
    return before


def installed(client: Client) -> list[dict[str, Any]]:
    """All installations of the tenant, as ``management/list`` gives them."""
    found: list[dict[str, Any]] = []
    page = 1
    while True:
        answer = client.get("management/list", page=page, page_size=256)
        found += answer["list"]
        if len(found) >= answer["total"] or not answer["list"]:
            return found
        page += 1


def find(client: Client, plugin: str) -> dict[str, Any]:
    """The installation of ``author/name`` (or a unique identifier); ClickException when none."""
    for row in installed(client):
        if plugin in (row["plugin_id"], row["plugin_unique_identifier"], row["id"]):
            return row
    raise click.ClickException(f"{plugin} is not installed (tidegate plugin list shows what is)")


def _same_version(client: Client, identifier: str) -> None:
    row = find(client, identifier.split(":", 1)[0])
    if row["plugin_unique_identifier"] != identifier:
        raise click.ClickException(
            f"another version is installed ({row['plugin_unique_identifier']}): "
            "move to this one by `tidegate plugin upgrade`"
        )


def _wait(client: Client, task_id: str, step: Callable[[str], None]) -> None:
    # No limit of its own: the task has one (PLUGIN_INSTALL_TIMEOUT) and ends with the reason, which
    # a second clock here would only hide.
    while True:
        task = client.get(f"management/install/tasks/{task_id}")
        for entry in task["plugins"]:
            step(f"{entry['plugin_id']}: {entry['message'] or entry['status']}")
            if entry["status"] == "failed":
                raise click.ClickException(f"{entry['plugin_id']}: {entry['message']}")
        if task["status"] == "success":
            return
        if task["status"] == "failed":
            raise click.ClickException(f"install task {task_id} failed")
        time.sleep(POLL)
