"""T22: a wrong address or key of Dify is told by ``tidegate doctor``, each by its cause."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fake_dify import FakeDify, fake_dify
from tidegate.backcalls.wiring import check_inner_api
from tidegate.errors import BackCallFailed, IdleTimeout, StartRefused
from tidegate.settings import Settings


@pytest.fixture
def dify() -> Iterator[FakeDify]:
    with fake_dify() as made:
        yield made


def check(dify: FakeDify, **changed: str) -> str:
    return check_inner_api(Settings.load({**dify.environ, **changed}))


def answering(dify: FakeDify, status: str) -> None:
    dify.on("invoke/encrypt", lambda exchange: exchange.json({"message": "said"}, status))


def test_T22_a_dify_that_takes_the_key_and_refuses_the_rest_is_right(dify: FakeDify) -> None:
    answering(dify, "400 BAD REQUEST")
    assert check(dify) == f"Dify takes the key at {dify.url}"
    (asked,) = dify.calls
    assert asked.raw == b"{}"


def test_T22_a_wrong_key_is_told_as_that(dify: FakeDify) -> None:
    with pytest.raises(BackCallFailed, match="is not Dify's INNER_API_KEY_FOR_PLUGIN") as refused:
        check(dify, DIFY_INNER_API_KEY="canary")
    assert "canary" not in refused.value.message


@pytest.mark.parametrize(
    ("status", "words"),
    [("403 FORBIDDEN", "before Dify"), ("502 BAD GATEWAY", "502"), ("200 OK", "is it Dify")],
)
def test_T22_what_is_not_dify_is_told_as_that(dify: FakeDify, status: str, words: str) -> None:
    answering(dify, status)
    with pytest.raises(BackCallFailed, match=words):
        check(dify)


def test_T22_nobody_there_and_nobody_who_answers(
    dify: FakeDify, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackCallFailed, match=r"127\.0\.0\.1:1: "):
        check(dify, DIFY_INNER_API_URL="http://127.0.0.1:1")
    monkeypatch.setattr("tidegate.backcalls.wiring.PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(IdleTimeout):
        check(dify, DIFY_INNER_API_URL=f"http://127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.parametrize("address", ["", "dify.example"])
def test_an_address_that_is_none_is_refused(dify: FakeDify, address: str) -> None:
    given: dict[str, Any] = {"DIFY_INNER_API_URL": address, "TIDEGATE_BACKCALLS": "dify"}
    with pytest.raises(StartRefused, match="DIFY_INNER_API_URL"):
        check(dify, **given)
