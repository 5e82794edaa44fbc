"""Log lines that outsiders cause: a burst is told, a flood is counted."""

from tidegate.telemetry.sparing import BURST, EVERY, Sparing
from tidegate.testing.clocks import HandClock


def test_a_burst_is_told_and_a_flood_is_counted():
    clock = HandClock()
    sparing = Sparing(clock=clock)
    asked = [sparing.ask() for _ in range(1000)]
    assert asked == [0] * BURST + [None] * (1000 - BURST)
    clock.pass_time(EVERY)
    assert [sparing.ask(), sparing.ask()] == [1000 - BURST, None]
    clock.pass_time(EVERY * BURST)
    assert [sparing.ask() for _ in range(BURST + 1)] == [1] + [0] * (BURST - 1) + [None]
