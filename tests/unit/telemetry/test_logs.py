"""Lines of the logs: shapes, quoting, and that nobody can forge one."""

from __future__ import annotations

import contextlib
import io
import json
import logging

import gevent
import pytest

from tidegate.errors import SettingInvalid
from tidegate.settings import Secret, Settings
from tidegate.telemetry.access import AccessLog
from tidegate.telemetry.logs import configure_logging, get_log, quoted


@pytest.fixture
def written():
    """Logging configured onto a text; put back afterwards."""
    root = logging.getLogger()
    before = list(root.handlers), root.level, logging.getLogger("tidegate").level
    raises = logging.raiseExceptions
    stream = io.StringIO()

    def configure(**environ: str) -> tuple[Settings, io.StringIO]:
        settings = Settings.load(environ)
        configure_logging(settings, stream)
        return settings, stream

    yield configure
    logging.raiseExceptions = raises
    for handler in set(root.handlers) - set(before[0]):
        if isinstance(handler, logging.FileHandler):
            with contextlib.suppress(OSError):  # of what it could not write
                handler.stream.close()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    logging.getLogger("tidegate").setLevel(before[2])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("/a/b?c", "/a/b?c"),
        ("", '""'),
        ("two words", '"two words"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("key=value", '"key=value"'),
        ("line\nbreak", '"line\\nbreak"'),
        ("\x1b[31mred", '"\\u001b[31mred"'),
        ("caf\u00e9", "caf\u00e9"),
        ("a\u2028b", '"a\\u2028b"'),
        (7, "7"),
        (Secret("key"), "***"),
    ],
)
def test_a_value_can_neither_end_a_line_nor_colour_it(value: object, shown: str) -> None:
    assert quoted(value) == shown


FORGED = "x\n2026-01-01T00:00:00 INFO tidegate forged\x1b[2J\u2028\u009b2J"


def refuse(text: str) -> None:
    raise ValueError(text)


@pytest.mark.parametrize("shape", ["text", "json"])
def test_what_an_exception_quotes_begins_no_line_and_moves_no_cursor(written, shape: str) -> None:
    _, stream = written(LOG_OUTPUT_FORMAT=shape)
    try:
        refuse(FORGED)
    except ValueError:
        get_log("api").exception("request failed", given=FORGED)
    logging.getLogger("of.another.library").error("cannot read %s", FORGED)
    said = stream.getvalue()
    lines = said.splitlines()
    assert "forged" in said
    assert all(line.isprintable() for line in lines)
    begun = [line for line in lines if not line.startswith("    ")]
    assert len(begun) == 2, "one each, and nobody else's"
    if shape == "json":
        assert json.loads(lines[0])["attributes"]["given"] == FORGED


def test_what_no_encoding_takes_is_written_all_the_same(written) -> None:
    _, stream = written(LOG_OUTPUT_FORMAT="json")
    get_log("api").warning("odd", given="a\ud800b")
    assert stream.getvalue().encode("utf-8")


def test_an_unknown_zone_is_one_line(written) -> None:
    with pytest.raises(SettingInvalid, match="SERVER_TZ"):
        written(SERVER_TZ="Mars/Olympus")


def access(log: AccessLog, status: int = 200, path: str = "/plugin/t/list") -> None:
    log.write("GET", path, status, 0.0123, "10.0.0.1")


def test_an_access_line_is_like_every_other_line(written) -> None:
    settings, stream = written(SERVER_TZ="Europe/Paris")
    log = AccessLog(settings)
    access(log)
    gevent.sleep(0)
    line = stream.getvalue()
    assert line.endswith(
        " INFO tidegate access HTTP request method=GET path=/plugin/t/list status=200 "
        "latency_ms=12.3 client_ip=10.0.0.1\n"
    )
    assert line[:26].count(":") == 2
    assert line[26:32] in ("+01:00", "+02:00")


def test_an_access_line_in_json_has_the_shape_of_the_others(written) -> None:
    settings, stream = written(LOG_OUTPUT_FORMAT="json")
    log = AccessLog(settings)
    access(log, 503)
    get_log("x").error("HTTP request")
    log.flush()
    other, mine = map(json.loads, stream.getvalue().splitlines())
    assert list(mine) == [key for key in other]
    assert mine["severity"] == "ERROR"
    assert mine["attributes"]["status"] == 503


@pytest.mark.parametrize(("level", "lines"), [("INFO", 3), ("WARN", 2), ("ERROR", 1)])
def test_the_level_is_that_of_the_status(written, level: str, lines: int) -> None:
    settings, stream = written(LOG_LEVEL=level)
    log = AccessLog(settings)
    for status in (200, 404, 500):
        access(log, status)
    log.flush()
    assert len(stream.getvalue().splitlines()) == lines


def test_lines_of_one_turn_are_one_write_and_none_is_lost(written) -> None:
    settings, stream = written()
    log = AccessLog(settings)
    for _ in range(3):
        access(log)
    assert stream.getvalue() == ""
    gevent.sleep(0)
    access(log, path="/a\nb")
    log.flush()
    log.flush()
    assert len(stream.getvalue().splitlines()) == 4
    assert 'path="/a\\nb"' in stream.getvalue()


def test_T_R2_a_disk_that_is_full_costs_lines_of_the_log_file_alone(written, capsys) -> None:
    settings, stream = written(LOG_FILE="/dev/full")
    get_log("hosts").info("instance ready", plugin="acme/x")
    AccessLog(settings).write("GET", "/health", 200, 0.001, "127.0.0.1")
    gevent.sleep(0)
    assert "instance ready" in stream.getvalue()
    assert "path=/health" in stream.getvalue()
    assert capsys.readouterr().err == ""
