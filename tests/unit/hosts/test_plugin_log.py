"""A plugin's log: bounded in lines and bytes, harmless to a terminal, never raising."""

import pytest

from tidegate.hosts import plugin_log
from tidegate.hosts.plugin_log import PluginLog


@pytest.fixture
def path(tmp_path):
    return tmp_path / "plugins/acme/x.log"


def test_lines_come_with_time_and_source(path):
    log = PluginLog(path)
    log.write("stdout", b"one\ntwo\n\n")
    log.write("warning", "three")
    log.close()
    lines = path.read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        "stdout one",
        "stdout two",
        "warning three",
    ]
    assert lines[0].startswith("20")


def test_what_would_move_the_cursor_is_written_out(path):
    log = PluginLog(path)
    log.write("stdout", b"\x1b[31mred\x07 \xff")
    log.close()
    assert path.read_text().split(" ", 2)[2] == "\\x1b[31mred\\x07 \\xff\n"


def test_a_log_message_of_many_lines_is_cut_before_it_is_taken_apart(path):
    log = PluginLog(path)
    log.write("info", "a\n" * 5_000_000)
    assert log.dropped < 128 << 10
    log.close()


def test_a_text_of_carriage_returns_is_counted_not_looked_at(path, monkeypatch):
    """Eight of them in one read stopped the host for a quarter of a second."""
    monkeypatch.setattr(plugin_log, "_RESUME", 1e9)
    log = PluginLog(path)
    looked = []
    look = log._line
    monkeypatch.setattr(PluginLog, "_line", lambda _, *line: looked.append(line) or look(*line))
    for _ in range(8):
        log.write("stdout", b"a\r" * 60_000)
    assert len(looked) <= 1100  # the bucket gets some back meanwhile
    assert len(looked) + log.dropped >= 60_000
    log.close()


def test_every_control_character_is_shown_as_before(path):
    text = "".join(map(chr, range(1, 0xA1))) + "\u2027\u2028\u2029\u202a"
    log = PluginLog(path)
    log.write("info", "".join(c for c in text if len(f"a{c}b".splitlines()) == 1))
    log.close()
    shown = path.read_text()
    assert "\\x01\\x02" in shown
    assert "\\x7f\\x80" in shown
    assert "\t" in shown
    assert "\u2027\u202a" in shown


def test_T_P1_a_flood_is_cut_and_says_so(path, monkeypatch):
    log = PluginLog(path)
    monkeypatch.setattr(plugin_log, "_RESUME", 1e9)
    for number in range(3000):
        log.write("stdout", f"line {number}")
    dropped = log.dropped
    assert 1000 < dropped <= 2000  # nothing comes back to the bucket on a quick machine
    monkeypatch.undo()
    log._tokens = 500.0
    log.write("stdout", "after")
    log.close()
    lines = path.read_text().splitlines()
    assert len(lines) == 3000 - dropped + 2
    assert f"{dropped} lines dropped" in lines[-2]


def test_files_rotate_and_the_oldest_goes(path, monkeypatch):
    monkeypatch.setattr(plugin_log, "_SIZE", 1000)
    log = PluginLog(path)
    for _ in range(100):
        log.write("stdout", "x" * 200)
    log.close()
    names = sorted(one.name for one in path.parent.iterdir())
    assert names[-3:] == ["x.log.1", "x.log.2", "x.log.3"]
    assert len(names) <= 4


def test_a_long_line_is_cut(path):
    log = PluginLog(path)
    log.write("stderr", b"y" * 1_000_000)
    log.close()
    assert path.stat().st_size < 9000


def test_T_R2_a_log_that_cannot_be_written_costs_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    log = PluginLog(tmp_path / "file/x.log")
    log.write("stdout", "lost")
    assert log.failures == 1
