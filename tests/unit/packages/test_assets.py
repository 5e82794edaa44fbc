"""Icons become ids of contents, and carry no scripts."""

import hashlib

import pytest

from tests.crafted_packages import ICON, LIMIT, MANIFEST, PROVIDER, plugin, zipped
from tidegate.errors import PackageRejected
from tidegate.packages import asset_id, open_package
from tidegate.packages.svg import sanitised


def opened(**changes):
    return open_package(zipped(plugin(**changes)), limit=LIMIT)


@pytest.mark.parametrize(
    ("name", "extension"),
    [("a.svg", ".svg"), ("x/b.tar.gz", ".gz"), ("plain", ""), (".svg", ".svg"), ("v1.0/plain", "")],
)
def test_id_is_the_hash_of_content_and_name(name, extension):
    digest = hashlib.sha256(b"content" + name.encode()).hexdigest()
    assert asset_id(name, b"content") == digest + extension


def test_icons_are_replaced_and_only_referenced_assets_are_returned():
    package = opened(**{"_assets___unused__png": b"x"})
    declaration, assets = package.declaration_with_assets(verified=True)
    icon = asset_id("icon.svg", ICON)
    assert declaration["icon"] == declaration["tool"]["identity"]["icon"] == icon
    assert declaration["icon_dark"] == ""
    assert assets == {icon: ICON}
    assert package.declaration(verified=True)["icon"] == "icon.svg"
    assert package.asset("unused.png") == b"x"
    assert package.asset("nothing.png") is None


def test_every_icon_of_every_kind_is_replaced():
    manifest = MANIFEST.replace("tools: [provider/weather.yaml]", "KIND: [p.yaml]").replace(
        "icon: icon.svg", "icon: icon.svg\nicon_dark: dark.svg"
    )
    identity = "identity: {name: x, label: {en_US: X}, icon: icons/a.png, icon_dark: dark.svg}"
    kinds = {
        "models": "icon_small: {en_US: icon.svg, ja_JP: icons/a.png}\n"
        "icon_large_dark: {en_US: dark.svg}",
        "agent_strategies": identity,
        "triggers": identity,
        "datasources": identity.replace(", icon_dark: dark.svg", "")
        + "\ndatasources: [{identity: {name: d, icon: dark.svg}}]",
    }
    extra = {"_assets/icons/a.png": b"png", "_assets/dark.svg": ICON + b" "}
    ids = {name.removeprefix("_assets/"): body for name, body in (extra | plugin()).items()}
    for kind, provider in kinds.items():
        files = plugin(manifest__yaml=manifest.replace("KIND", kind), p__yaml=provider) | extra
        declaration, assets = open_package(zipped(files), limit=LIMIT).declaration_with_assets(True)
        assert set(assets) == {
            asset_id(name, ids[name]) for name in ("icon.svg", "dark.svg", "icons/a.png")
        }
        for name in ids:
            assert f"'{name}'" not in str(declaration), kind


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"_assets___icon__svg": None}, "plugin icon: file not found: icon.svg"),
        (
            {"provider___weather__yaml": PROVIDER.replace("icon.svg", "../main.py")},
            "tool icon: file not found",
        ),
    ],
)
def test_missing_icon_is_rejected(changes, what):
    with pytest.raises(PackageRejected, match=f"failed to remap {what}"):
        opened(**changes).declaration_with_assets(verified=False)


def test_icon_without_scripts_stays_the_same_object():
    content = b"""<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "x.dtd">
    <svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">
    <style>.a{fill:red}</style><use xlink:href="#a"/><image href="data:image/png;base64,AA=="/>
    <a href="https://acme.example/x:y"><animate attributeName="x" to="1"/></a></svg>"""
    assert sanitised("icon.svg", content) is content


def test_id_of_a_sanitised_icon_is_that_of_the_packed_one():
    bad = ICON.replace(b"<rect", b"<script>alert(1)</script><rect")
    declaration, assets = opened(**{"_assets___icon__svg": bad}).declaration_with_assets(True)
    assert declaration["icon"] == asset_id("icon.svg", bad)
    assert b"script" not in assets[declaration["icon"]]
    assert b"<rect" in assets[declaration["icon"]]
