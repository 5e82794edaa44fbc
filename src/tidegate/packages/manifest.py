"""``manifest.yaml``: who made the plugin, what it needs, how it is run (spec/plugin/08, 5)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping as Fields
from dataclasses import dataclass, field
from typing import final

from packaging.version import InvalidVersion, Version

from tidegate.errors import InvalidIdentifier, PackageRejected
from tidegate.ids import IDENTIFIER_LIMIT, PluginIdentifier
from tidegate.packages.declarations import CATEGORIES, KINDS
from tidegate.packages.declarations.configs import TAGS
from tidegate.packages.manifest_rules import AUTHOR, NAME
from tidegate.packages.scalars import NO_TIME, time_of
from tidegate.packages.shapes import (
    I18N,
    Json,
    Misfit,
    Shape,
    amount,
    flag,
    list_of,
    members,
    nullable,
    optional_text,
    real,
    record,
    text,
)
from tidegate.packages.yaml_nodes import Node, compose

MANIFEST = "manifest.yaml"
# A manifest is a page of text; the largest of an official plugin has 4 kB.
_MOST_BYTES = 1 << 20


def _created_at(node: Node | None) -> str:
    if real(node) is None:
        return NO_TIME
    stamp = time_of(text(node))
    if stamp is None:
        assert node is not None  # noqa: S101 - `real` said so
        raise Misfit("takes a time such as 2024-07-12T08:03:44Z", node)
    return stamp


def _flags(*names: str) -> dict[str, Shape]:
    return dict.fromkeys(names, flag)


_PERMISSIONS: dict[str, Shape] = {
    "tool": nullable(record(_flags("enabled"))),
    "model": nullable(
        record(
            _flags("enabled", "llm", "text_embedding", "rerank", "tts", "speech2text", "moderation")
        )
    ),
    "node": nullable(record(_flags("enabled"))),
    "endpoint": nullable(record(_flags("enabled"))),
    "app": nullable(record(_flags("enabled"))),
    "storage": nullable(record({"enabled": flag, "size": amount})),
}
_TEXTS = list_of(text)
_MANIFEST = record(
    {
        "version": text,
        "type": text,
        "author": text,
        "name": text,
        "label": I18N,
        "description": I18N,
        "icon": text,
        "icon_dark": text,
        "resource": record(
            {
                "memory": amount,
                "permission": nullable(record(_PERMISSIONS, omit=tuple(_PERMISSIONS))),
            },
            omit=("permission",),
        ),
        "plugins": record({kind.files: _TEXTS for kind in KINDS}),
        "meta": record(
            {
                "version": text,
                "arch": _TEXTS,
                "runner": record({"language": text, "version": text, "entrypoint": text}),
                "minimum_dify_version": optional_text,
            }
        ),
        "tags": TAGS,
        "created_at": _created_at,
        "privacy": optional_text,
        "repo": optional_text,
    },
    omit=("privacy", "repo"),
)


@final
@dataclass(frozen=True, slots=True)
class Runner:
    """What a plugin wants to be run by: ``python``, ``3.12``, module ``main``."""

    language: str
    version: str
    entrypoint: str


@final
@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that holds the rules which every package must (spec/http/01 section 6.2)."""

    author: str
    name: str
    version: str
    runner: Runner
    category: str
    values: Fields[str, Json]  #: the manifest's own part of the declaration; not to be changed
    kinds: tuple[str, ...]  #: ``tool``, ``endpoint``, … that the plugin offers
    inline: Fields[str, Node] = field(repr=False)  #: kinds that are written in the manifest itself

    @property
    def plugin_id(self) -> str:
        """``author/name``."""
        return f"{self.author}/{self.name}"


def decode_manifest(content: bytes) -> Manifest:
    """Read manifest.yaml; PackageRejected says which field does not fit, and why."""
    if len(content) > _MOST_BYTES:
        raise PackageRejected(f"{MANIFEST} is too large: at most {_MOST_BYTES} bytes are taken")
    return read_manifest(compose(content, MANIFEST))


def read_manifest(node: Node | None, registered: tuple[str, ...] | None = None) -> Manifest:
    """A manifest from its node. ``registered``: the kinds that a debugged plugin offers; what
    the manifest says about files does not count then. PackageRejected as decode_manifest."""
    try:
        values = _MANIFEST(node)
        inline = {
            kind.key: part
            for kind in KINDS
            if (part := real(members(node).get(kind.key))) is not None
        }
    except Misfit as misfit:
        raise PackageRejected(f"{MANIFEST}: {misfit}") from None
    named = (kind.key for kind in KINDS if kind.key in inline or values["plugins"][kind.files])
    kinds = tuple(named) if registered is None else registered
    _check(values, kinds)
    category = next(name for kind, name in CATEGORIES if kind in kinds)
    runner = Runner(**values["meta"]["runner"])
    return Manifest(
        values["author"], values["name"], values["version"], runner, category, values, kinds, inline
    )


def identifier_of(manifest: Manifest, checksum: str) -> PluginIdentifier:
    """The unique identifier; PackageRejected when name and version do not make a valid one."""
    try:
        identifier = PluginIdentifier.parse(f"{manifest.plugin_id}:{manifest.version}@{checksum}")
    except InvalidIdentifier as error:
        raise _illegal(error.message) from None
    over = len(str(identifier)) - IDENTIFIER_LIMIT
    # At upload and with the number: the database would say so in the middle of an installation.
    if over > 0:
        raise _illegal(
            f"author, name, version and checksum make an identifier of {IDENTIFIER_LIMIT + over} "
            f"characters, and {IDENTIFIER_LIMIT} can be stored: take {over} off author or name"
        )
    return identifier


def _check(values: Fields[str, Json], kinds: tuple[str, ...]) -> None:
    author, name, version = values["author"], values["name"], values["version"]
    # Older daemons put the tenant there while a plugin was debugged, and Dify still reads it so.
    if _is_uuid(author):
        raise PackageRejected("cannot set author to an UUID")
    if not AUTHOR.fullmatch(author):
        raise _illegal(
            f"author must be alphanumeric and less than 64 characters: ^{AUTHOR.pattern}$"
        )
    if not NAME.fullmatch(name):
        raise _illegal(
            f"plugin name must be alphanumeric and less than 128 characters: ^{NAME.pattern}$"
        )
    try:
        # Dify's client parses every version of a list with this library, and one that it cannot
        # parse empties the whole plugin page.
        Version(version)
    except InvalidVersion:
        raise _illegal(
            f"version {version[:100]!r} is none that Dify reads (PEP 440): "
            "take numbers such as 0.0.3, or 0.0.3-rc1"
        ) from None
    _check_kinds(kinds)


def _check_kinds(kinds: tuple[str, ...]) -> None:
    if not kinds:
        raise _illegal(
            "at least one of endpoint, model, tool, agent_strategy, trigger, or datasource "
            "must be provided"
        )
    for alone in ("model", "agent_strategy", "datasource", "trigger"):
        others = [kind for kind in kinds if kind != alone]
        if alone in kinds and others:
            raise _illegal(f"{alone} and {', '.join(others)} cannot be provided at the same time")


def _is_uuid(author: str) -> bool:
    try:
        uuid.UUID(author)
    except ValueError:
        return False
    return True


def _illegal(why: str) -> PackageRejected:
    return PackageRejected(f"illegal plugin manifest: {why}")
