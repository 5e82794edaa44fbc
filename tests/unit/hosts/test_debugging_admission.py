"""Caps of the debugging listener, with a clock of the test's."""

from __future__ import annotations

from contextlib import ExitStack, suppress

import pytest

from tidegate.errors import RegistrationRefused
from tidegate.hosts.debugging.admission import Admission, Limits


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_connections_are_counted_from_accept_to_close(clock):
    admission = Admission(Limits(connections=2), clock)
    with admission.connection("a"), admission.connection("b"):
        assert admission.connections == 2
        with pytest.raises(RegistrationRefused, match="busy"), admission.connection("c"):
            pass
    assert admission.connections == 0


def test_the_count_never_drifts_whatever_ends_a_connection(clock):
    admission = Admission(Limits(connections=1), clock)
    for _ in range(3):
        with suppress(ZeroDivisionError), admission.connection("a") as visit:
            visit.known()
            visit.known()
            raise ZeroDivisionError
    assert admission.connections == 0


def test_strangers_of_an_address_are_counted_until_they_are_known(clock):
    admission = Admission(Limits(strangers=2), clock)
    with ExitStack() as stack:
        first = stack.enter_context(admission.connection("a"))
        stack.enter_context(admission.connection("a"))
        with pytest.raises(RegistrationRefused, match="busy"), admission.connection("a"):
            pass
        stack.enter_context(admission.connection("b"))
        first.known()
        stack.enter_context(admission.connection("a"))


def test_a_refused_key_is_not_looked_up_again_for_a_moment(clock):
    admission = Admission(Limits(key_memory=5.0), clock)
    admission.check_key("a", "wrong")
    with pytest.raises(RegistrationRefused, match="invalid key"):
        admission.key_refused("a", "wrong")
    with pytest.raises(RegistrationRefused, match="invalid key"):
        admission.check_key("b", "wrong")
    admission.check_key("a", "another")
    clock.now += 6
    admission.check_key("a", "wrong")


def test_an_address_that_guesses_has_to_wait_and_the_line_says_how_long(clock):
    admission = Admission(Limits(wrong_keys=2, key_memory=0.0), clock)
    for key in ("one", "two"):
        with pytest.raises(RegistrationRefused):
            admission.key_refused("a", key)
        clock.now += 10
    with pytest.raises(RegistrationRefused, match="from a, try again in 40 seconds"):
        admission.check_key("a", "good")
    admission.check_key("b", "good")
    clock.now += 41
    admission.check_key("a", "good")


def test_what_is_remembered_is_bounded(clock, monkeypatch):
    monkeypatch.setattr("tidegate.hosts.debugging.admission._REMEMBERED", 10)
    admission = Admission(Limits(), clock)
    for number in range(100):
        with pytest.raises(RegistrationRefused):
            admission.key_refused(f"a{number}", f"k{number}")
    assert len(admission._wrong) <= 10
    assert len(admission._refused_keys) <= 10


def test_a_network_of_ipv6_is_one_stranger(clock):
    """With one /64 a single machine could fill the listener, or guess without end."""
    admission = Admission(Limits(strangers=2, wrong_keys=2), clock)
    with ExitStack() as held:
        for number in (1, 2):
            held.enter_context(admission.connection(f"2001:db8::{number}"))
        with pytest.raises(RegistrationRefused, match="busy"), admission.connection("2001:db8::3"):
            pass
        held.enter_context(admission.connection("2001:db8:0:1::3"))
    for number in (1, 2):
        with pytest.raises(RegistrationRefused, match="invalid key"):
            admission.key_refused(f"2001:db8::{number}", f"wrong{number}")
    with pytest.raises(RegistrationRefused, match="too many invalid keys"):
        admission.check_key("2001:db8::9", "another")
    admission.check_key("2001:db8:0:1::9", "another")
