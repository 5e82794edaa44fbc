"""``tidegate examples``: the last step of ``make run``.

Packs each plugin of a folder, signs it with a key of this installation's own, and installs it
over the HTTP API as any package. The door stays shut for everything else: signatures are still
required, this installation just trusts one more key (``keys/trusted/examples.pem``).
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from tidegate import packages
from tidegate.cli.client import Client
from tidegate.cli.plugin import installing
from tidegate.cli.show import Progress
from tidegate.cli.target import Target, local_settings, takes_target
from tidegate.packages import Package
from tidegate.runtime.home import write_whole
from tidegate.settings import Home, Settings

_BITS = 3072
_SAMPLES: dict[str, object] = {"number": 3, "boolean": True}


@click.command("examples", short_help="Sign and install the plugins of a folder.")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@takes_target
def command(folder: Path, target: Target) -> None:
    """Pack, sign and install the plugins below FOLDER, then print a curl line that calls one."""
    settings = local_settings()
    client = Client(target)
    progress = Progress()
    try:
        progress.step("looking for the key that signs the examples")
        key = _signing_key(settings.home)
        known = {row["plugin_unique_identifier"] for row in installing.installed(client)}
        chosen = [
            _bring(client, path, key, known, progress)
            for path in sorted(folder.iterdir())
            if (path / "manifest.yaml").is_file()
        ]
    finally:
        progress.done()
    _tell(settings, target, chosen)


def _signing_key(home: Home) -> bytes:
    """The private key; made at the first start, and trusted from then on."""
    private, trusted = home.keys / "examples.private.pem", home.keys / "trusted" / "examples.pem"
    if not (private.exists() and trusted.exists()):
        trusted.parent.mkdir(mode=0o700, exist_ok=True)
        secret, public = packages.generate_key(bits=_BITS)
        # Each whole or not at all: half a file would be taken for a key at the next start.
        write_whole(private, secret)
        write_whole(trusted, public)
    return private.read_bytes()


def _bring(
    client: Client, folder: Path, key: bytes, known: set[str], progress: Progress
) -> Package:
    """Install one example, unless this very package is installed."""
    limit = local_settings().max_plugin_package_size
    progress.step(f"packing {folder.name}")
    unsigned = packages.open_package(packages.build_package(folder), limit=limit)
    data = packages.sign(unsigned, key, "community")
    package = packages.open_package(data, limit=limit)
    identifier = str(package.identifier)
    # The key stays and packing is repeatable, so the same folder has the same identifier at every
    # start.
    if identifier in known:
        return package
    for row in installing.installed(client):
        if row["plugin_id"] == package.identifier.plugin_id:
            progress.step(f"removing {row['plugin_unique_identifier']}, {folder.name} has changed")
            client.post("management/uninstall", {"plugin_installation_id": row["id"]})
    progress.step(f"uploading {folder.name}")
    installing.upload(client, f"{folder.name}.difypkg", data)
    installing.install(client, identifier, progress.step)
    return package


def _tell(settings: Settings, target: Target, chosen: list[Package]) -> None:
    home = settings.home
    lines = [
        "",
        f"Tidegate serves at {target.base}",
        f"  data     {home.root}",
        f"  logs     {home.logs}",
        f"  keys     {home.keys} (server.key is the X-Api-Key)",
        f"  tenant   {target.tenant}",
        f"  plugins  {', '.join(str(one.identifier).split('@')[0] for one in chosen)}",
    ]
    tools = [one for one in chosen if one.declaration(verified=True).get("tool")]
    if tools:
        lines += ["", "Paste this to see a plugin stream its answer:", ""]
        lines += [curl_line(target, tools[0]), ""]
    agents = [one for one in chosen if one.declaration(verified=True).get("agent_strategy")]
    if agents:
        lines += ["And this to see an agent call a model and a tool through its host:", ""]
        lines += [curl_line(target, agents[0]), ""]
    lines += ["Ctrl-C stops everything.", ""]
    click.echo("\n".join(lines))


def curl_line(target: Target, package: Package) -> str:
    """One line for a shell that invokes the first tool, or agent strategy, of a plugin."""
    declaration = package.declaration(verified=True)
    route, data = _tool_call(declaration) if declaration.get("tool") else _agent_call(declaration)
    body = {"user_id": "me", "data": data}
    words = ["curl", "-N", "-sS", f"{target.base}/plugin/{target.tenant}/dispatch/{route}"]
    words += ["-H", f"X-Api-Key: {target.key.reveal()}"]
    words += ["-H", f"X-Plugin-ID: {package.identifier.plugin_id}"]
    words += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    return shlex.join(words)


def _tool_call(declaration: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    provider = declaration["tool"]
    tool = provider["tools"][0]
    return "tool/invoke", {
        "provider": provider["identity"]["name"],
        "tool": tool["identity"]["name"],
        "tool_parameters": _samples(tool, required_only=False),
        "credentials": {},
    }


def _agent_call(declaration: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    provider = declaration["agent_strategy"]
    strategy = provider["strategies"][0]
    return "agent_strategy/invoke", {
        "agent_strategy_provider": provider["identity"]["name"],
        "agent_strategy": strategy["identity"]["name"],
        "agent_strategy_params": _samples(strategy, required_only=True),
    }


def _samples(thing: dict[str, Any], *, required_only: bool) -> dict[str, Any]:
    return {
        one["name"]: one.get("default") or _SAMPLES.get(one.get("type"), "world")
        for one in thing.get("parameters") or []
        if one.get("required") or not required_only
    }
