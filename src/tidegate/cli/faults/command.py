"""``tidegate faults``."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from tidegate import packages
from tidegate.cli.client import Client
from tidegate.cli.faults import report
from tidegate.cli.faults.actors import ACTORS, Actor
from tidegate.cli.faults.calling import Server
from tidegate.cli.faults.running import Pack, Seen
from tidegate.cli.plugin import installing
from tidegate.cli.plugin.package import pack
from tidegate.cli.show import Progress
from tidegate.cli.target import Target, takes_target

_FOLDER = Path(__file__).with_name("actor")
_NAMES = ("badactor", "bystander")


@click.command("faults", short_help="Run bad actors against a server and see who is hurt.")
@takes_target
@click.option("--only", default="", help="Names of actors, comma-separated; the default is all.")
@click.option("--streams", default=20, help="Bystanders on each of the two plugins.")
@click.option("--seconds", default=6.0, help="How long each bystander streams.")
@click.option("--patience", default=25.0, help="Seconds after which a call counts as hung.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the report there (JSON).")
@click.option("--private-key", type=click.Path(exists=True, path_type=Path), help="Sign with it.")
@click.option("--keep", is_flag=True, help="Leave the two plugins installed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def command(
    target: Target,
    only: str,
    streams: int,
    seconds: float,
    patience: float,
    output: Path | None,
    private_key: Path | None,
    keep: bool,
    as_json: bool,
) -> int:
    """Install a misbehaving plugin twice; let it do one deed after the other while others stream.

    Exit code 1 when a bystander was hurt or the culprit's own call hung.
    """
    chosen = _chosen(only)
    client, progress = Client(target), Progress()
    began = datetime.now(UTC)
    plugins: list[str] = []
    try:
        for name in _NAMES:
            plugins.append(_bring(client, name, private_key, progress))
        pack = Pack(Server(target, patience), *plugins, streams=streams, seconds=seconds)
        seen = _run(pack, chosen, progress)
    finally:
        progress.done()
        if not keep:  # also after Ctrl-C: somebody else's server is not left with a bad actor
            _take_away(client, plugins)
    facts = report.facts(target.base, began, seen)
    if output is not None:
        output.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    click.echo(json.dumps(facts, indent=1) if as_json else report.tables(seen))
    return int(any(one.faults for one in seen))


def _chosen(only: str) -> list[Actor]:
    names = [name for name in re.split(r"[,\s]+", only) if name]
    unknown = set(names) - {one.name for one in ACTORS}
    if unknown:
        known = ", ".join(one.name for one in ACTORS)
        raise click.BadParameter(
            f"{', '.join(sorted(unknown))}: there are {known}", param_hint="--only"
        )
    return [one for one in ACTORS if not names or one.name in names]


def _bring(client: Client, name: str, private_key: Path | None, progress: Progress) -> str:
    """Build, upload and install the bad actor under a name; the plugin id."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / name
        shutil.copytree(_FOLDER, copy)
        manifest = copy / "manifest.yaml"
        # Twice the same plugin under two names: bystanders on the culprit's own process, and on
        # another.
        manifest.write_text(manifest.read_text("utf-8").replace("name: badactor", f"name: {name}"))
        data = pack(copy)
    if private_key is not None:
        opened = packages.open_package(data, limit=len(data) * 10)
        data = packages.sign(opened, private_key.read_bytes(), "community")
    progress.step(f"installing {name}: its environment may have to be built")
    identifier = installing.upload(client, f"{name}.difypkg", data)
    installing.install(client, identifier, progress.step)
    return identifier.split(":", 1)[0]


def _run(pack: Pack, chosen: list[Actor], progress: Progress) -> list[Seen]:
    seen = []
    for number, actor in enumerate(chosen, 1):
        progress.step(f"{number} of {len(chosen)}: {actor.name} - {actor.did}")
        seen.append(pack.play(actor))
        # For what the last one left behind to settle: its damage is not to be counted against the
        # next.
        time.sleep(0.5)
    return seen


def _take_away(client: Client, plugins: list[str]) -> None:
    for plugin in plugins:
        row = installing.find(client, plugin)
        client.post("management/uninstall", {"plugin_installation_id": row["id"]})
