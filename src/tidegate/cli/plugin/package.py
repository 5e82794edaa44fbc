"""``tidegate plugin package``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import click

from tidegate import packages
from tidegate.cli.target import as_json, local_settings

_EXPORT = (
    "export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", "--no-hashes",
    "--no-header", "--no-annotate",
)  # fmt: skip


@click.command("package", short_help="Make a .difypkg of a plugin's folder.")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "-o", "--output", "--output_path", "output", type=click.Path(path_type=Path), help="The file."
)
@as_json
def command(folder: Path, output: Path | None, as_json: bool) -> None:
    """Check FOLDER and pack it into a .difypkg, leaving out what .difyignore names."""
    data = pack(folder)
    package = packages.open_package(data, limit=local_settings().max_plugin_package_size)
    path = output or Path(f"{folder.resolve().name}.difypkg")
    path.write_bytes(data)
    facts = {"file": str(path), "identifier": str(package.identifier), "bytes": len(data)}
    click.echo(json.dumps(facts) if as_json else f"{path}: {package.identifier}")


def pack(folder: Path) -> bytes:
    """The package of a folder; PackageRejected says what is wrong with it."""
    limit = local_settings().max_plugin_package_size
    return packages.build_package(folder, extra=_requirements(folder), limit=limit)


def _requirements(folder: Path) -> Mapping[str, bytes]:
    """``requirements.txt`` out of uv.lock, for hosts that know no lock file."""
    locked = (folder / "uv.lock").is_file() and (folder / "pyproject.toml").is_file()
    if not locked or (folder / "requirements.txt").exists():
        return {}
    uv = local_settings().uv_path or _bundled_uv()
    # Frozen: packing must not resolve anew and pack other versions than were tested.
    done = subprocess.run([uv, *_EXPORT], cwd=folder, capture_output=True, check=False)
    if done.returncode:
        raise click.ClickException(f"uv export: {done.stderr.decode(errors='replace').strip()}")
    return {"requirements.txt": done.stdout}


def _bundled_uv() -> str:
    from uv import find_uv_bin

    return find_uv_bin()
