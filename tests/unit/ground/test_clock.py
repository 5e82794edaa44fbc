"""Pauses that double."""

from tidegate.clock import doubled


def test_a_pause_doubles_up_to_the_longest_also_after_years_of_tries() -> None:
    assert [doubled(0.5, times, 3) for times in range(4)] == [0.5, 1, 2, 3]
    assert doubled(0.5, 1 << 20, 30) == 30, "2.0 ** 1024 is no number any more"
