"""What a debugged plugin declares as JSON is what its package declares as YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.registrations import ICON, MANIFEST, TOOL
from tidegate.errors import PackageRejected, RegistrationRefused
from tidegate.packages import Package, build_package, open_package, register
from tidegate.packages.declarations import KINDS
from tidegate.packages.json_nodes import json_node
from tidegate.packages.shapes import anything

TENANT = "0b7f485a-4c47-4aa1-b113-4a18462d122d"
ROOT = Path(__file__).resolve().parents[3]
PLUGINS = sorted(one.parent for one in ROOT.glob("*/**/manifest.yaml") if ".venv" not in one.parts)


def registered(manifest: Any = MANIFEST, tenant: str = TENANT, **providers: Any):
    given = providers or {"tool": TOOL}
    texts = {kind: json.dumps(one).encode() for kind, one in given.items()}
    return register(json.dumps(manifest).encode(), texts, {"icon.svg": ICON}, tenant)


def refusal(**given: Any) -> str:
    with pytest.raises(RegistrationRefused) as caught:
        registered(**given)
    return caught.value.message


def parts_of(package: Package) -> tuple[bytes, dict[str, bytes], dict[str, bytes]]:
    """What the plugin of a package would send: manifest, providers, assets."""
    manifest = package.declaration(False)
    found = [kind.key for kind in KINDS if kind.key in manifest]
    providers = {key: msgspec.json.encode(manifest.pop(key)) for key in found}
    assets = {
        name.removeprefix("_assets/"): package.read(name)
        for name in package.names
        if name.startswith("_assets/")
    }
    return msgspec.json.encode(manifest), providers, assets


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda one: one.name)
def test_a_registration_declares_what_the_package_declares(folder):
    package = open_package(build_package(folder), limit=1 << 28)
    made = register(*parts_of(package), TENANT)
    declaration, icons = package.declaration_with_assets(False)
    assert made.declaration == declaration
    assert made.icons == icons
    assert made.identifier.plugin_id == package.identifier.plugin_id


def test_the_identity_is_the_declarations_and_the_tenants():
    one = registered().identifier
    assert registered().identifier == one
    assert registered(tenant="other").identifier.checksum != one.checksum
    changed = {**TOOL, "tools": []}
    assert registered(tool=changed).identifier.checksum != one.checksum
    assert str(one).startswith("acme/kitchen:0.0.1@")


def test_a_name_that_no_column_holds_is_told_to_the_developer():
    long = {**MANIFEST, "author": "a" * 64, "name": "n" * 128}
    assert "take 9 off author or name" in refusal(manifest=long)


def test_what_sdks_add_is_left_out_and_what_they_lack_is_filled():
    declaration = registered().declaration
    assert "extra" not in declaration["tool"]["tools"][0]
    assert declaration["tags"] == []
    assert declaration["verified"] is False
    assert json.loads(registered().text) == declaration


def test_types_of_json_are_kept_where_no_field_says_otherwise():
    value = {"a": [1, 1.5, True, None, "true", "1.10", "", 9007199254740993]}
    assert anything(json_node(json.dumps(value).encode(), "it")) == value


@pytest.mark.parametrize("item", [b"[]", b"{}", b"1", b'"a,b,c,d"'])
def test_json_of_very_many_values_is_refused_before_they_are_made(item, monkeypatch):
    """A line of 16 MB took half a minute and a gigabyte."""
    decoded = []
    real = msgspec.json.decode
    monkeypatch.setattr(msgspec.json, "decode", lambda text: decoded.append(text) or real(text))
    with pytest.raises(PackageRejected, match="too many values"):
        json_node(b"[" + item + (b"," + item) * 1_000_000 + b"]", "it")
    assert not decoded


def test_json_of_many_values_is_refused_as_they_are_made():
    with pytest.raises(PackageRejected, match="too many values"):
        json_node(b"[1" + b",1" * 250_000 + b"]", "it")
    assert json_node(b"[1" + b",1" * 249_998 + b"]", "it").size == 250_000


def test_kinds_that_cannot_be_together_are_refused():
    model = {"provider": "m", "label": {"en_US": "M"}, "models": []}
    assert "cannot be provided at the same time" in refusal(tool=TOOL, model=model)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"version": "1"}, "version"),
        ({"author": "Acme Inc."}, "author"),
        ({"type": "bundle"}, "type must be plugin"),
        ({"label": {}}, "label.en_US is missing"),
        ({"meta": {}}, "meta"),
        ({"resource": {"memory": "much"}}, "memory"),
        ({"created_at": None}, "created_at is missing"),
        ({"tags": ["nonsense"]}, "tag"),
    ],
)
def test_a_manifest_has_to_hold_every_rule_of_packing(change, text):
    message = refusal(manifest={**MANIFEST, **change})
    assert message.startswith("handshake failed, invalid plugin declaration: ")
    assert text in message


@pytest.mark.parametrize(
    ("kind", "provider", "words"),
    [
        ("tool", 7, "tools"),
        ("tool", {**TOOL, "tools": [7]}, "tools"),
        ("model", {"provider": ""}, "models"),
        ("agent_strategy", {"identity": {"name": ""}}, "agent strategy"),
        ("datasource", {"identity": 7}, "datasource"),
        ("trigger", {"identity": {}}, "triggers"),
        ("endpoint", {"settings": 7}, "endpoints"),
    ],
)
def test_a_provider_that_does_not_fit_is_refused_with_its_words(kind, provider, words):
    message = refusal(**{kind: provider})
    assert message.startswith(f"{words} register failed, invalid {words} declaration: ")
    assert "(line" not in message


def test_an_icon_that_was_not_sent_is_refused():
    assert "file not found: none.svg" in refusal(manifest={**MANIFEST, "icon": "none.svg"})


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"[" * 200 + b"]" * 200, b"[" + b"1," * 260_000 + b"1]"],
    ids=["nothing", "half", "bytes", "deep", "many"],
)
def test_json_that_is_none_or_too_much_is_refused(content):
    with pytest.raises(PackageRejected):
        json_node(content, "it")
