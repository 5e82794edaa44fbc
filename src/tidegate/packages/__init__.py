"""Packages: ``.difypkg`` files, opened safely, understood, verified, signed and built.

    package = open_package(data, limit=settings.max_plugin_package_size)
    package.identifier                          # acme/weather:0.0.1@5f1c…
    verification = verify(package, TrustedKeys.load(settings))
    declaration, assets = package.declaration_with_assets(verification is not None)

No sockets, no processes: bytes in, values out. Whatever is wrong with a package is a
:class:`tidegate.errors.PackageRejected` that says what and where.

======================  ===========================================================
names, zip_records,     the archive: one reading or none, bounded by what is written
archive, checksum
yaml_nodes, scalars,    YAML that stays text until a field's shape says what it is
shapes
manifest, declarations  what the files of a plugin say, as the JSON that Dify knows
assets, svg             icons
trust, signing          keys, signatures, categories
building, ignore_rules  from a plugin's folder to a package
bundles                 several packages, or names of them, in one file
registration, json_nodes what a debugged plugin declares over its connection
======================  ===========================================================
"""

from __future__ import annotations

from tidegate.packages.assets import asset_id
from tidegate.packages.building import build_package
from tidegate.packages.bundles import Dependency, open_bundle
from tidegate.packages.manifest import Manifest, Runner
from tidegate.packages.manifest_rules import TAGS
from tidegate.packages.package import Package, open_package
from tidegate.packages.registration import Registered, register
from tidegate.packages.signing import generate_key, sign
from tidegate.packages.trust import (
    TrustedKey,
    TrustedKeys,
    Verification,
    examine,
    read_public_key,
    require_author,
    verify,
)

__all__ = [
    "TAGS",
    "Dependency",
    "Manifest",
    "Package",
    "Registered",
    "Runner",
    "TrustedKey",
    "TrustedKeys",
    "Verification",
    "asset_id",
    "build_package",
    "examine",
    "generate_key",
    "open_bundle",
    "open_package",
    "read_public_key",
    "register",
    "require_author",
    "sign",
    "verify",
]
