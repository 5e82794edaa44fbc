"""The full rules of a manifest: what packing checks and reading does not (spec/plugin/08 §5, "V").

Published packages break some of them and run all the same, so a package that is read only has to
hold the few rules of :mod:`tidegate.packages.manifest`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from tidegate.packages.shapes import Json

AUTHOR: Final = re.compile(r"[a-z0-9_-]{1,64}")
NAME: Final = re.compile(r"[a-z0-9_-]{1,128}")
VERSION: Final = re.compile(r"\d{1,4}(\.\d{1,4}){2}(-\w{1,16})?", re.ASCII)
TAGS: Final = frozenset(
    (
        *("search", "image", "videos", "weather", "finance", "design", "travel", "social"),
        *("news", "medical", "productivity", "education", "business", "entertainment"),
        *("utilities", "agent", "rag", "other", "trigger"),
    )
)
_ARCHITECTURES = {"amd64", "arm64"}
_LANGUAGES = ("en_US", "ja_JP", "zh_Hans", "pt_BR")
_STORAGE = range(1024, (1 << 30) + 1)


def manifest_faults(values: Mapping[str, Json]) -> list[str]:
    """Everything that is wrong with a manifest, one line each; empty when it is fine."""
    return [
        *_identity_faults(values),
        *_resource_faults(values["resource"]),
        *_path_faults(values["plugins"]),
        *_meta_faults(values["meta"]),
    ]


def _identity_faults(values: Mapping[str, Json]) -> Iterator[str]:
    if not VERSION.fullmatch(values["version"]):
        yield f"version must look like 0.0.1 or 0.0.1-rc1, not {values['version']!r}"
    if values["type"] != "plugin":
        yield f"type must be plugin, not {values['type']!r}"
    for name in ("label", "description"):
        yield from _i18n_faults(name, values[name])
    if not values["icon"]:
        yield "icon is missing"
    for name in ("icon", "icon_dark"):
        if len(values[name]) > 128:
            yield f"{name} is longer than 128 characters"
    for tag in values["tags"]:
        if tag not in TAGS:
            yield f"tag {tag!r} is none of {', '.join(sorted(TAGS))}"
    if values["created_at"].startswith("0001-"):
        yield "created_at is missing"
    repo = values.get("repo")
    if repo is not None and not re.match(r"https?://.", repo):
        yield f"repo must be a URL, not {repo!r}"


def _i18n_faults(name: str, texts: Mapping[str, str]) -> Iterator[str]:
    if not texts["en_US"]:
        yield f"{name}.en_US is missing"
    for language in _LANGUAGES:
        if len(texts.get(language, "")) > 1023:
            yield f"{name}.{language} is longer than 1023 characters"


def _resource_faults(resource: Mapping[str, Json]) -> Iterator[str]:
    if not resource["memory"]:
        yield "resource.memory (bytes) is missing"
    storage = (resource.get("permission") or {}).get("storage")
    if storage and storage["size"] not in _STORAGE:
        yield f"resource.permission.storage.size must be {_STORAGE[0]} to {_STORAGE[-1]} bytes"


def _path_faults(plugins: Mapping[str, Json]) -> Iterator[str]:
    for kind, paths in plugins.items():
        for path in paths or []:
            if len(path) > 128:
                yield f"plugins.{kind} has a path longer than 128 characters"


def _meta_faults(meta: Mapping[str, Json]) -> Iterator[str]:
    if not VERSION.fullmatch(meta["version"]):
        yield f"meta.version must look like 0.0.1, not {meta['version']!r}"
    if not meta["arch"] or set(meta["arch"]) - _ARCHITECTURES:
        yield "meta.arch must list amd64, arm64 or both"
    runner = meta["runner"]
    if runner["language"] != "python":
        yield f"meta.runner.language must be python, not {runner['language']!r}"
    for name, most in (("version", 128), ("entrypoint", 256)):
        if not 0 < len(runner[name]) <= most:
            yield f"meta.runner.{name} must have 1 to {most} characters"
