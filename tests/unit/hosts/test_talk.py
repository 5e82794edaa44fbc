"""What a plugin says beside its answers, and what of it may stand in its log."""

from __future__ import annotations

import pytest

from tidegate.backcalls import Caller
from tidegate.hosts.plugin_log import PluginLog
from tidegate.hosts.talk import Talk


@pytest.mark.parametrize(
    ("level", "word"),
    [
        ("INFO", "info"),
        ("warn", "warning"),
        ("x\n2026-01-01 er", "log"),
        ("\x1b[2J", "log"),
        ("", "log"),
        ("l" * 100, "l" * 16),
    ],
)
def test_the_level_of_a_line_is_a_word_whatever_the_plugin_calls_it(tmp_path, level, word):
    log = PluginLog(tmp_path / "x.log")
    talk = Talk(
        Caller("acme/x:0.0.1@" + "0" * 64, {}),
        log,
        ready=lambda: None,
        session_of=lambda session: None,
        break_off=lambda session, error: None,
        target=None,  # type: ignore[arg-type] - nothing is asked
    )
    talk.log(level, "said")
    log.close()
    [line] = (tmp_path / "x.log").read_text().splitlines()
    assert line.split(" ")[1:] == [word, "said"]
