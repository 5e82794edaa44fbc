"""Errors that came over the link: whatever a plugin says about itself stays its own call's."""

import json

import pytest

from tidegate.calls import PluginFailed
from tidegate.calls.failures import _OURS, failure_from
from tidegate.doors.dify.opening import refused
from tidegate.doors.envelope import failure
from tidegate.errors import Overloaded


@pytest.mark.parametrize("error_type", [*_OURS, "ValueError", ""])
@pytest.mark.parametrize("name", ["message", "self", "cls", "raw", "details", "", "error_type"])
def test_no_name_of_a_detail_makes_an_exception_of_another_kind(error_type, name):
    """It would be raised in the reader of the link: the calls of everybody ended with it."""
    raw = {"error_type": error_type, "message": "m", "args": {name: 1}}
    error = failure_from(json.dumps(raw).encode())
    assert error.message == "m"
    assert json.loads(error.as_json()) == raw


@pytest.mark.parametrize("args", ["[" * 3000 + "]" * 3000, "[" * 100_000, "\xff", "9" * 5000, '"'])
def test_an_error_that_cannot_be_read_is_the_plugins_own(args):
    raw = b'{"error_type":"SlowConsumer","message":"m","args":' + args.encode("latin-1") + b"}"
    error = failure_from(raw)
    assert isinstance(error, PluginFailed)
    assert json.loads(error.as_json())["error_type"] in ("PluginFailed", "SlowConsumer")


@pytest.mark.parametrize("retry", ["soon", [], {}, 1e300, -5, None, True, "1\r\nX: y"])
def test_a_plugin_that_says_when_to_come_back_says_it_in_seconds_or_not_at_all(retry):
    raw = {"error_type": "Overloaded", "message": "m", "args": {"retry_after": retry}}
    error = failure_from(json.dumps(raw).encode())
    assert isinstance(error, Overloaded)
    assert failure(refused(error)).headers in ((), (("Retry-After", "1"),))
