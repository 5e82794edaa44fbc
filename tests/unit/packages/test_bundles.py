"""Bundles: what they list, and what is refused."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import pytest

from tidegate.errors import PackageRejected
from tidegate.packages import open_bundle

MANIFEST = """
name: bundle
author: acme
version: 0.0.1
type: bundle
icon: icon.svg
labels: {en_US: Bundle}
description: {en_US: A bundle}
tags: [search]
dependencies:
"""
GITHUB = "- {type: github, value: {repo_pattern: 'acme/weather:1.0.0/weather.difypkg'}}\n"
MARKET = "- {type: marketplace, value: {marketplace_pattern: 'acme/weather:~1.0.0'}}\n"
PACKAGE = "- {type: package, value: {path: abc123}}\n"
LIMIT = 1 << 20


def bundle(dependencies: str = " []\n", files: Mapping[str, bytes] | None = None) -> bytes:
    text = MANIFEST.rstrip("\n") + (dependencies if "[]" in dependencies else "\n" + dependencies)
    return packed({"manifest.yaml": text.encode(), **(files or {})})


def packed(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def refusal(data: bytes, limit: int = LIMIT) -> str:
    with pytest.raises(PackageRejected) as caught:
        open_bundle(data, limit=limit)
    return caught.value.message


def test_T_S2_a_package_that_is_named_often_is_held_once() -> None:
    """A bundle of 50 kB with one package of 50 MB of zeros took 12 GB."""
    found = open_bundle(bundle(PACKAGE * 256, {"_assets/abc123": bytes(1000)}), limit=LIMIT)
    assert len(found) == 256
    assert len({id(one.package) for one in found}) == 1


def test_dependencies_come_in_the_order_of_the_bundle() -> None:
    found = open_bundle(
        bundle(PACKAGE + GITHUB + MARKET, {"_assets/abc123": b"the package"}), limit=LIMIT
    )
    assert [one.type for one in found] == ["package", "github", "marketplace"]
    assert found[0].package == b"the package"
    assert found[1].value == {
        "repo_address": "https://github.com/acme/weather",
        "repo": "acme/weather",
        "release": "1.0.0",
        "packages": "weather.difypkg",
    }
    assert found[2].value == {"organization": "acme", "plugin": "weather", "version": "~1.0.0"}


def test_an_empty_bundle_is_empty() -> None:
    assert open_bundle(bundle(), limit=LIMIT) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"garbage", "difybndl: not a valid difybndl file"),
        (packed({"x": b""}), "there is no manifest.yaml"),
        (
            packed({"manifest.yaml": b"name: a\nauthor: b\nversion: 1.0.0"}),
            "type must be bundle",
        ),
        (packed({"manifest.yaml": b"type: bundle"}), ": name is missing"),
        (packed({"manifest.yaml": b"a: [b"}), "not valid YAML"),
        (bundle("- {type: nope, value: {}}\n"), "dependencies[0] has the type 'nope'"),
        (bundle(GITHUB + "- {type: github, value: {repo_pattern: x}}\n"), "dependencies[1]"),
        (bundle("- {type: package, value: {path: '../x'}}\n"), "cannot be understood"),
        (bundle("- {type: marketplace, value: 5}\n"), "dependencies[0]"),
        (bundle("- {}\n"), "has the type ''"),
        (bundle(GITHUB * 257), "257 dependencies, at most 256"),
    ],
)
def test_what_is_wrong_is_told(data: bytes, words: str) -> None:
    assert words in refusal(data)


def test_packages_that_are_missing_are_named() -> None:
    dependencies = PACKAGE + PACKAGE.replace("abc123", "def456")
    message = refusal(bundle(dependencies, {"_assets/abc123": b"x"}))
    assert message == "the bundle lacks the packages that it names: def456"


def test_D_41_the_unpacked_size_of_a_bundle_is_bounded() -> None:
    data = bundle(PACKAGE, {"_assets/abc123": b"\0" * 200_000})
    assert len(data) < 10_000
    assert "bundle size is too large" in refusal(data, limit=100_000)
