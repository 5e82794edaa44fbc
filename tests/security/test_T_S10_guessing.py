"""Guessing keys: the tenth wrong one from an address is the last that is compared at once."""

from __future__ import annotations

import hmac
import json
import math
import operator
import os
import time
from collections import Counter

import pytest

from tests.unit.api.conftest import Client, Harness, request
from tidegate.api.guessing import FREE, LONGEST, Guesses
from tidegate.api.keys import Keys
from tidegate.doors.routes import Auth
from tidegate.errors import Unauthorized
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
        guesses.failed(f"2001:db8:{number:x}::1")
    assert len(guesses._records) <= 10_000


LONG = 4 << 20
"""A key so long that a comparison that stops at the first difference shows in milliseconds."""


def spent(tmp_path, differing: int) -> float:
    """CPU time of one look at a wrong key that differs from the right one at that byte only."""
    given = "k" * differing + "x" + "k" * (LONG - differing - 1)
    wanted = Keys(Settings.load({"TIDEGATE_HOME": str(tmp_path), "SERVER_KEY": "k" * LONG}))
    times = []
    for number in range(9):
        environ = {"HTTP_X_API_KEY": given, "REMOTE_ADDR": f"10.0.0.{number}"}
        begun = time.thread_time()
        with pytest.raises(Unauthorized):
            wanted.require(Auth.KEY, environ)
        times.append(time.thread_time() - begun)
    return min(times)


@pytest.mark.blocks_hub("compares keys of megabytes")
def test_T_S10_the_time_of_a_comparison_says_nothing_of_the_key(tmp_path, monkeypatch):
    early, late = spent(tmp_path, 0), spent(tmp_path, LONG - 1)
    assert late / early < 1.25
    # The guard's own test: an ordinary comparison is seen by the same measurement.
    monkeypatch.setattr(hmac, "compare_digest", operator.eq)
    assert spent(tmp_path, LONG - 1) / spent(tmp_path, 0) > 1.25


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::1", "::1", True),
        ("", "", True),
        ("unix:", "unix:", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_T_S10_a_network_that_is_one_guessers_is_one_address(one, other, same):
    """Of IPv6 everybody has 2^64 addresses, each with ten free guesses."""
    guesses = Guesses(HandClock())
    for _ in range(50):
        guesses.failed(one)
    assert (guesses.blocked(other) > 0) == same


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


TRIES = 10_000 if os.environ.get("TIDEGATE_TEST_SOAK") else 2_000


@pytest.mark.stretched
@pytest.mark.blocks_hub("thousands of requests in the process of the test")
def test_T_S10_thousands_of_tries_are_answered_and_a_handful_compared(harness, monkeypatch):
    """One connection after another, as fast as it goes; the right key is among what is tried."""
    compared = []
    original = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(a) or original(a, b))
    begun = time.monotonic()
    client = Client(harness.address)
    statuses: Counter[int] = Counter()
    for start in range(0, TRIES, 100):
        keys = [b"guess%d" % number for number in range(start, start + 99)]
        if start:
            keys.append(b"secret")
        head = b"Host: x\r\nX-Api-Key: %b\r\n"
        client.send(b"".join(request("GET", "/plain", head=head % key) for key in keys))
        statuses.update(client.answer()[0] for _ in keys)
    client.close()
    # Each time that a pause ends one more is compared, and the next pause is twice as long.
    turns = math.log2(time.monotonic() - begun + 1) + 1
    assert statuses.keys() == {401, 429}
    assert statuses[401] == FREE - 1
    assert FREE <= len(compared) <= FREE + turns
