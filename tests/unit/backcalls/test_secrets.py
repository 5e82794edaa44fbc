"""The vault, and secrets of endpoint settings: never clear at rest, through Dify or here."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fake_dify import FakeDify, fake_dify
from tests.unit.backcalls.conftest import TENANT
from tidegate.backcalls.endpoint_secrets import OF_DIFY, open_endpoint_secrets
from tidegate.backcalls.vault import Vault
from tidegate.errors import SecretsUnavailable
from tidegate.settings import Settings

ENDPOINT = "0198c5d2-0000-7000-8000-0000000000ee"
CONFIG = [
    {"name": "token", "type": "secret-input", "required": True, "label": {"en_US": "Token"}},
    {"name": "plain", "type": "text-input", "required": False},
]
VALUES = {"token": "s3cret", "plain": "x"}
WHO = (TENANT, "u1", ENDPOINT)


def home(tmp_path: Any, **variables: str) -> Settings:
    return Settings.load({"TIDEGATE_HOME": str(tmp_path), **variables})


# --------------------------------------------------------------------------- vault


def test_what_is_sealed_opens_at_its_place_only(tmp_path):
    vault = Vault(home(tmp_path))
    sealed = vault.seal(b"s3cret", "here")
    assert "s3cret" not in sealed
    assert vault.unseal(sealed, "here") == b"s3cret"
    with pytest.raises(SecretsUnavailable):
        vault.unseal(sealed, "there")


def test_the_same_text_is_sealed_differently_each_time(tmp_path):
    vault = Vault(home(tmp_path))
    assert vault.seal(b"x", "here") != vault.seal(b"x", "here")


def test_the_key_is_made_once_and_readable_by_its_owner_only(tmp_path):
    sealed = Vault(home(tmp_path)).seal(b"x", "here")
    path = tmp_path / "keys" / "credentials.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Vault(home(tmp_path)).unseal(sealed, "here") == b"x"
    assert [one.name for one in path.parent.iterdir()] == ["credentials.key"]


def test_a_key_may_be_given_and_is_then_the_one(tmp_path):
    key = base64.b64encode(b"k" * 32).decode()
    sealed = Vault(home(tmp_path / "a", TIDEGATE_CREDENTIALS_KEY=key)).seal(b"x", "here")
    other = Vault(home(tmp_path / "b", TIDEGATE_CREDENTIALS_KEY=key))
    assert other.unseal(sealed, "here") == b"x"
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("key", ["short", base64.b64encode(b"k" * 16).decode(), "!" * 44])
def test_a_key_that_is_none_is_refused_without_showing_it(tmp_path, key):
    with pytest.raises(SecretsUnavailable, match="TIDEGATE_CREDENTIALS_KEY") as caught:
        Vault(home(tmp_path, TIDEGATE_CREDENTIALS_KEY=key)).seal(b"x", "here")
    assert key not in str(caught.value)


@pytest.mark.parametrize("sealed", ["tg1:", "tg1:AAAA", "tg1:no base64", "", "x"])
def test_what_was_never_sealed_does_not_open(tmp_path, sealed):
    with pytest.raises(SecretsUnavailable):
        Vault(home(tmp_path)).unseal(sealed, "here")


def test_another_key_does_not_open(tmp_path):
    sealed = Vault(home(tmp_path / "a")).seal(b"x", "here")
    with pytest.raises(SecretsUnavailable, match="another key"):
        Vault(home(tmp_path / "b")).unseal(sealed, "here")


# --------------------------------------------------------------------------- here


def test_secrets_are_sealed_here_when_there_is_no_dify(tmp_path):
    secrets = open_endpoint_secrets(home(tmp_path))
    stored = secrets.encrypt(*WHO, VALUES, CONFIG)
    assert stored["plain"] == "x"
    assert stored["token"].startswith("tg1:")
    assert "s3cret" not in json.dumps(stored)
    assert secrets.decrypt(*WHO, stored, CONFIG) == VALUES
    secrets.clear(*WHO, stored, CONFIG)


def test_sealed_settings_open_for_their_endpoint_and_tenant_only(tmp_path):
    secrets = open_endpoint_secrets(home(tmp_path))
    stored = secrets.encrypt(*WHO, VALUES, CONFIG)
    for who in ((TENANT, "u1", "other"), ("other", "u1", ENDPOINT)):
        with pytest.raises(SecretsUnavailable):
            secrets.decrypt(*who, stored, CONFIG)


@pytest.mark.parametrize("value", [None, 7, ["a"], {"a": 1}, "", "tg1:"])
def test_a_secret_of_any_kind_survives(tmp_path, value):
    secrets = open_endpoint_secrets(home(tmp_path))
    stored = secrets.encrypt(*WHO, {"token": value}, CONFIG)
    assert stored["token"].startswith("tg1:")
    assert secrets.decrypt(*WHO, stored, CONFIG) == {"token": value}


def test_settings_that_were_stored_in_the_clear_come_back(tmp_path):
    secrets = open_endpoint_secrets(home(tmp_path))
    assert secrets.decrypt(*WHO, VALUES, CONFIG) == VALUES


def test_what_dify_encrypted_is_not_taken_for_a_secret(tmp_path):
    secrets = open_endpoint_secrets(home(tmp_path))
    cipher = base64.b64encode(b"HYBRID:" + bytes(range(40))).decode()
    assert cipher.startswith(OF_DIFY)
    with pytest.raises(SecretsUnavailable, match="encrypted by Dify"):
        secrets.decrypt(*WHO, {"token": cipher}, CONFIG)


# --------------------------------------------------------------------------- through Dify


@pytest.fixture
def dify() -> Iterator[FakeDify]:
    with fake_dify() as made:
        yield made


@pytest.fixture
def secrets(dify, tmp_path):
    made = open_endpoint_secrets(home(tmp_path, **dify.environ))
    yield made
    made.close()


def upper(exchange: Any) -> dict[str, Any]:
    data = exchange.body["data"]
    return {"data": {name: value.upper() for name, value in data.items()}}


def test_dify_is_asked_as_the_reference_asks(secrets, dify):
    dify.on("invoke/encrypt", upper)
    assert secrets.encrypt(*WHO, VALUES, CONFIG) == {"token": "S3CRET", "plain": "X"}
    secrets.decrypt(*WHO, VALUES, CONFIG)
    assert [call.body["opt"] for call in dify.calls] == ["encrypt", "decrypt"]
    assert dify.calls[0].body == {
        "tenant_id": TENANT,
        "user_id": "u1",
        "type": "encrypt",
        "opt": "encrypt",
        "namespace": "endpoint",
        "identity": ENDPOINT,
        "data": VALUES,
        "config": CONFIG,
    }


def test_what_was_sealed_before_dify_came_still_opens(secrets, dify, tmp_path):
    config = [*CONFIG, {"name": "second", "type": "secret-input"}]
    before = open_endpoint_secrets(home(tmp_path)).encrypt(*WHO, VALUES, CONFIG)
    dify.on("invoke/encrypt", upper)
    assert secrets.decrypt(*WHO, before, config) == VALUES
    assert dify.calls == []
    mixed = {**before, "second": "cipher"}
    assert secrets.decrypt(*WHO, mixed, config) == {
        "token": "s3cret",
        "plain": "X",
        "second": "CIPHER",
    }
    assert dify.calls[0].body["data"] == {"plain": "x", "second": "cipher"}


def test_clearing_carries_no_settings(secrets, dify):
    dify.on("invoke/encrypt", upper)
    secrets.clear(*WHO, VALUES, CONFIG)
    assert dify.calls[0].body["opt"] == "clear"
    assert b"s3cret" not in dify.calls[0].raw


@pytest.mark.parametrize("config", [[], CONFIG[1:]])
def test_settings_without_a_secret_go_nowhere(secrets, dify, config):
    assert secrets.encrypt(*WHO, VALUES, config) == VALUES
    assert secrets.decrypt(*WHO, VALUES, config) == VALUES
    secrets.clear(*WHO, VALUES, config)
    assert dify.calls == []


def test_a_dify_that_refuses_is_an_error_without_the_secret(secrets, dify):
    dify.on("invoke/encrypt", lambda exchange: exchange.json({"data": None, "error": "no tenant"}))
    with pytest.raises(SecretsUnavailable, match="no tenant") as caught:
        secrets.encrypt(*WHO, VALUES, CONFIG)
    assert "s3cret" not in str(caught.value)
    dify.on("invoke/encrypt", lambda exchange: exchange.json({"message": "x"}, "500 OOPS"))
    with pytest.raises(SecretsUnavailable, match="500"):
        secrets.decrypt(*WHO, VALUES, CONFIG)
