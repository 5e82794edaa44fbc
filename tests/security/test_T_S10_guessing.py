"""Guessing keys: the tenth wrong one from an address is the last that is compared at once."""

from __future__ import annotations

import hmac
import inspect
import json

import pytest

from tests.unit.api.conftest import Client, Harness, request
from tidegate.api import keys
from tidegate.api.guessing import FREE, LONGEST, Guesses
from tidegate.settings import Settings
from tidegate.testing.api_server import served
from tidegate.testing.clocks import HandClock


def test_T_S10_each_further_guess_doubles_the_wait_up_to_a_quarter_of_an_hour():
    clock = HandClock()
    guesses = Guesses(clock)
    pauses = []
    for _ in range(10_000):
        pauses.append(guesses.failed("10.0.0.1"))
        clock.pass_time(pauses[-1])
    assert pauses[: FREE - 1] == [0.0] * (FREE - 1)
    assert pauses[FREE - 1 : FREE + 3] == [1, 2, 4, 8]
    assert pauses[-1] == LONGEST
    assert sum(pauses) > 90 * 86400  # ten thousand guesses take months


def test_T_S10_only_the_guesser_is_blocked():
    guesses = Guesses(HandClock())
    for _ in range(50):
        guesses.failed("10.0.0.1")
    assert guesses.blocked("10.0.0.1") > 0
    assert guesses.blocked("10.0.0.2") == 0


def test_T_S10_whoever_has_shown_the_right_key_is_not_locked_out_by_a_neighbour():
    guesses = Guesses(HandClock())
    guesses.succeeded("10.0.0.1")
    for _ in range(50):
        guesses.failed("10.0.0.1")
    assert guesses.blocked("10.0.0.1") == 0


def test_T_S10_addresses_without_number_take_no_memory_without_end():
    guesses = Guesses(HandClock())
    for number in range(30_000):
        guesses.failed(f"2001:db8::{number:x}")
    assert len(guesses._records) <= 10_000


def test_T_S10_keys_are_compared_in_constant_time():
    assert "hmac.compare_digest" in inspect.getsource(keys.Keys.require)
    assert keys.hmac.compare_digest is hmac.compare_digest


@pytest.fixture
def harness(tmp_path):
    harness = Harness(Settings.load({"TIDEGATE_HOME": str(tmp_path), "SERVER_KEY": "secret"}))
    with served(harness.application) as address:
        harness.address = address
        yield harness


def test_T_S10_a_blocked_address_learns_nothing_even_with_the_right_key(harness):
    def ask(key: bytes) -> tuple[int, dict[str, str], bytes]:
        client = Client(harness.address)
        try:
            client.send(request("GET", "/plain", head=b"Host: x\r\nX-Api-Key: %b\r\n" % key))
            return client.answer()
        finally:
            client.close()

    assert [ask(b"guess%d" % n)[0] for n in range(FREE - 1)] == [401] * (FREE - 1)
    status, headers, body = ask(b"guess")
    assert (status, headers["retry-after"]) == (429, "1")
    right = ask(b"secret")
    assert right[0] == 429
    assert json.loads(right[2]) == json.loads(body)
    assert json.loads(body)["code"] == -401
