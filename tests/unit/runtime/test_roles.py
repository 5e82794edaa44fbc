"""The log of a role that `tidegate up` looks after."""

import contextlib
import os
import sys
from pathlib import Path

from gevent import monkey

from tidegate.runtime import roles, supervise
from tidegate.runtime.roles import RoleLog


def test_T_R2_a_disk_that_is_full_costs_lines_of_a_log_and_is_said_once(capsys):
    """It ended the loop that looks after the roles, and with it all four of them."""
    log = RoleLog(Path("/dev/full"), "host", quiet=False)
    log.write(b"one\ntwo")
    log.write(b" more\n")
    log.close()
    shown = capsys.readouterr().out
    assert shown.count("not in /dev/full: [Errno 28]") == 1
    assert "host   | one" in shown
    assert "host   | two more" in shown
    assert log.last == "two more"


def test_a_log_rotates_and_goes_on_where_that_cannot_be(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(roles, "_LOG_LIMIT", 100)
    path = tmp_path / "host.log"
    log = RoleLog(path, "host", quiet=True)
    log.write(b"a" * 101)
    log.write(b"b")
    assert path.read_bytes() == b"b"
    assert (tmp_path / "host.log.1").read_bytes() == b"a" * 101
    (tmp_path / "host.log.4").touch()
    (tmp_path / "host.log.5").mkdir()
    log.write(b"c" * 101)
    log.write(b"d")
    log.close()
    assert path.read_bytes() == b"b" + b"c" * 101 + b"d"
    assert "not in" in capsys.readouterr().out


def test_a_terminal_that_is_gone_ends_nothing(monkeypatch):
    """`tidegate up | head` lost its loop, and with it the order in which roles are stopped."""
    reader, writer = os.pipe()
    close = monkey.get_original("os", "close")
    close(reader)
    gone = open(writer, "w")  # noqa: SIM115 - what is in it cannot be written at its end either
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", gone)
        supervise._say("starting host, worker, beat, api")
    with contextlib.suppress(OSError):
        gone.close()
