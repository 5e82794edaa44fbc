"""Ids that come from outside: what is one, and what only looks like one."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tidegate.errors import InvalidIdentifier
from tidegate.ids import PluginIdentifier, is_uuid

CANONICAL = "0b7f485a-4c47-4aa1-b113-4a18462d122d"
BARE = CANONICAL.replace("-", "")


@pytest.mark.parametrize("text", [CANONICAL, CANONICAL.upper(), BARE, BARE.upper()])
def test_a_uuid_is_one_in_its_two_forms(text):
    assert is_uuid(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "x", CANONICAL + "\n", "\n" + CANONICAL, " " + BARE[1:], f"{{{CANONICAL}}}",
        f"urn:uuid:{CANONICAL}", "0-b-7-f" + BARE[4:], CANONICAL[:8] + CANONICAL[9:],
        "+" + BARE[1:],
        "0_" + BARE[2:], "0x" + BARE[2:], BARE[:31] + "\uff11", BARE + "0", "../" + CANONICAL,
    ],
)  # fmt: skip
def test_what_python_takes_for_a_uuid_as_well_is_none(text):
    assert not is_uuid(text)


@given(some.uuids())
def test_any_uuid_is_one(value: uuid.UUID):
    assert is_uuid(str(value))
    assert is_uuid(value.hex)


@given(some.text(some.characters(codec="utf-8")) | some.from_regex(r"[./\\a-z0-9:@-]*"))
def test_whatever_is_an_identifier_is_a_plain_name_of_two_folders(text: str):
    try:
        folder = PluginIdentifier.parse(text).folder
    except InvalidIdentifier:
        return
    assert folder.count("/") <= 1
    assert ".." not in folder
    assert folder.isascii()
    assert folder.isprintable()
