"""Packages for tests: whole small plugins, and archives whose every field can be a lie."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

LIMIT = 1 << 20
ICON = b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="1" height="1"/></svg>'

MANIFEST = """\
version: 0.0.1
type: plugin
author: acme
name: weather
label: {en_US: Weather}
description: {en_US: Tells the weather}
icon: icon.svg
resource: {memory: 1048576}
plugins:
  tools: [provider/weather.yaml]
meta:
  version: 0.0.1
  arch: [amd64, arm64]
  runner: {language: python, version: "3.12", entrypoint: main}
tags: [weather]
created_at: 2024-07-12T08:03:44.658609186Z
"""
PROVIDER = """\
identity: {author: acme, name: weather, label: {en_US: Weather}, icon: icon.svg}
tools: [tools/today.yaml]
"""
TOOL = """\
identity: {author: acme, name: today, label: {en_US: Today}}
description: {human: {en_US: Weather of today}, llm: weather of today}
"""


def plugin(**changes: str | bytes | None) -> dict[str, bytes]:
    """Files of a small valid plugin; ``manifest__yaml="…"`` replaces, None removes a file."""
    files: dict[str, bytes] = {
        "_assets/icon.svg": ICON,
        "main.py": b"print('hello')\n",
        "manifest.yaml": MANIFEST.encode(),
        "provider/weather.yaml": PROVIDER.encode(),
        "tools/today.yaml": TOOL.encode(),
    }
    for name, content in changes.items():
        path = name.replace("___", "/").replace("__", ".")
        if content is None:
            del files[path]
        else:
            files[path] = content.encode() if isinstance(content, str) else content
    return files


def zipped(
    files: Mapping[str, bytes], *, method: int = zipfile.ZIP_DEFLATED, comment: bytes = b""
) -> bytes:
    """An ordinary zip archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.comment = comment
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


@dataclass
class Entry:
    """One entry; ``local`` and ``central`` override single fields of its two headers."""

    name: bytes
    content: bytes = b""
    method: int = 8
    flags: int = 0
    mode: int = 0o100644
    local: dict[str, Any] = field(default_factory=dict)
    central: dict[str, Any] = field(default_factory=dict)
    descriptor: bytes | None = None
    packed: bytes | None = None

    def values(self) -> dict[str, Any]:
        """What both headers say when they tell the truth."""
        return {
            "name": self.name,
            "method": self.method,
            "flags": self.flags,
            "crc": zlib.crc32(self.content),
            "packed": len(self.body()),
            "size": len(self.content),
            "extra": b"",
        }

    def body(self) -> bytes:
        """The (compressed) content."""
        if self.packed is not None:
            return self.packed
        return deflated(self.content) if self.method == 8 else self.content


def deflated(content: bytes) -> bytes:
    """Raw deflate, as in zip archives."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return squeezer.compress(content) + squeezer.flush()


def crafted(
    entries: Iterable[Entry],
    *,
    before: bytes = b"",
    gap: bytes = b"",
    comment: bytes = b"",
    after: bytes = b"",
    end: Mapping[str, int] | None = None,
    end64: bytes = b"",
) -> bytes:
    """An archive from its parts: bytes in front, between the files, and behind the directory."""
    out, directory = bytearray(before), bytearray()
    count = 0
    for entry in entries:
        local = entry.values() | entry.local
        if entry.flags & 8:
            local = local | {"crc": 0, "packed": 0, "size": 0} | entry.local
        central = {"header": len(out), "comment": b"", "disk": 0} | entry.values() | entry.central
        out += _local(local) + entry.body() + (entry.descriptor or b"") + gap
        directory += _central(central, entry.mode)
        count += 1
    fields = {"disk": 0, "start": 0, "here": count, "count": count, "size": len(directory)}
    fields |= {"offset": len(out), "comment": len(comment)} | dict(end or {})
    out += directory + end64
    out += struct.pack("<4s4H2LH", b"PK\x05\x06", *fields.values())
    return bytes(out) + comment + after


def _local(v: Mapping[str, Any]) -> bytes:
    sizes = (v["crc"], v["packed"], v["size"], len(v["name"]), len(v["extra"]))
    head = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, v["flags"], v["method"], 0, 33, *sizes)
    return head + v["name"] + v["extra"]


def _central(v: Mapping[str, Any], mode: int) -> bytes:
    head = struct.pack(
        "<4s6H3L5H2L",
        b"PK\x01\x02",
        0x0314,
        20,
        v["flags"],
        v["method"],
        0,
        33,
        v["crc"],
        v["packed"],
        v["size"],
        len(v["name"]),
        len(v["extra"]),
        len(v["comment"]),
        v["disk"],
        0,
        mode << 16,
        v["header"],
    )
    return head + v["name"] + v["extra"] + v["comment"]


def entries(files: Mapping[str, bytes]) -> list[Entry]:
    """Truthful entries of these files."""
    return [Entry(name.encode(), content) for name, content in files.items()]
