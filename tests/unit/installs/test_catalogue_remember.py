"""Ready answers: kept until anything changes, bounded, never older than a change."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.installs.conftest import TENANT, House
from tidegate.installs import catalogue as module

pytestmark = pytest.mark.blocks_hub("migrations run in the test's process")


class Made:
    """Counts how often an answer was made."""

    def __init__(self, answer: bytes | None = b"x", during: Callable[[], None] | None = None):
        self.answer = answer
        self.during = during
        self.count = 0

    def __call__(self) -> bytes | None:
        self.count += 1
        if self.during is not None:
            self.during()
        return self.answer


def test_an_answer_is_made_once_until_something_changes(house: House) -> None:
    made = Made()
    for _ in range(3):
        assert house.catalogue.remember(("list", TENANT), made) == b"x"
    assert made.count == 1
    house.catalogue.invalidate(1 << 30)
    house.catalogue.remember(("list", TENANT), made)
    assert made.count == 2


def test_keys_are_told_apart(house: House) -> None:
    assert house.catalogue.remember(("list", TENANT, 1), lambda: b"one") == b"one"
    assert house.catalogue.remember(("list", TENANT, 2), lambda: b"two") == b"two"
    assert house.catalogue.remember(("list", TENANT, 1), lambda: b"other") == b"one"


def test_an_answer_that_was_overtaken_by_a_change_is_not_kept(house: House) -> None:
    made = Made(during=lambda: house.catalogue.invalidate(1 << 30))
    house.catalogue.remember(("list",), made)
    made.during = None
    house.catalogue.remember(("list",), made)
    assert made.count == 2


def test_what_is_not_there_is_asked_for_again(house: House) -> None:
    made = Made(answer=None)
    for _ in range(2):
        assert house.catalogue.remember(("hook", "x"), made) is None
    assert made.count == 2


def test_an_error_is_not_kept(house: House) -> None:
    with pytest.raises(ZeroDivisionError):
        house.catalogue.remember(("x",), lambda: 1 // 0)
    assert house.catalogue.remember(("x",), lambda: b"x") == b"x"


def test_bytes_are_bounded_and_the_oldest_go(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 250)
    made = [Made(bytes([number]) * 100) for number in range(3)]
    for number, one in enumerate(made):
        house.catalogue.remember((number,), one)
    for number in (2, 1, 0):
        house.catalogue.remember((number,), made[number])
    assert [one.count for one in made] == [2, 1, 1]
