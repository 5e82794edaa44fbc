"""The line before a plugin that is not up."""

import json

import gevent
import pytest

from tidegate.errors import PluginStartFailed
from tidegate.hosts.waiting import WaitingLine
from tidegate.link import ServerCall
from tidegate.wire.heads import PluginHead


class Connection:
    """Enough of a connection for calls that end before a frame is sent."""

    def __init__(self):
        self.calls = {}
        self.sent = []
        self.outbox = self
        self.pending = 0

    def write(self, parts):
        self.sent.append(b"".join(parts))

    def call(self, session, seconds=60.0, tenant="t"):
        head = PluginHead(
            plugin="acme/x:1", session=session, type="tool", action="invoke_tool",
            tenant=tenant, seconds=seconds, owner="caller",
        )  # fmt: skip
        return ServerCall(self, len(self.sent) + 1, head, b"")

    def errors(self):
        found = []
        for sent in self.sent:
            start = sent.find(b"{")
            found.append(json.loads(sent[start : sent.rfind(b"}") + 1]))
        return found


@pytest.fixture
def connection():
    return Connection()


@pytest.fixture
def line():
    one = WaitingLine(0.3, lambda: "environment: downloading")
    yield one
    one.close()


def test_calls_leave_in_the_order_they_came(line, connection):
    for name in "abc":
        line.add(connection.call(name))
    assert [call.head.session for call in line.take()] == ["a", "b", "c"]
    assert len(line) == 0


def test_who_waits_too_long_hears_what_the_start_is_at(line, connection):
    line.add(connection.call("a"))
    gevent.sleep(0.6)
    (error,) = connection.errors()
    assert error["error_type"] == "PluginStartFailed"
    assert "no available node, plugin runtime not found" in error["message"]
    assert "environment: downloading" in error["message"]
    assert len(line) == 0


def test_a_call_whose_own_time_is_over_hears_that(line, connection):
    line.add(connection.call("a", seconds=0.05))
    gevent.sleep(0.35)
    assert connection.errors()[0]["error_type"] == "DeadlineExceeded"


def test_a_caller_that_leaves_is_not_kept(line, connection):
    call = connection.call("a")
    line.add(call)
    call.on_cancel()
    assert len(line) == 0
    gevent.sleep(0.6)
    assert connection.sent == []


def test_a_failure_goes_to_everybody_with_its_details(line, connection):
    for name in "ab":
        line.add(connection.call(name))
    line.fail(PluginStartFailed("exit code 3", exit_code=3))
    for error in connection.errors():
        assert error["message"] == "no available node, plugin runtime not found: exit code 3"
        assert error["args"] == {"exit_code": 3}
    line.fail(PluginStartFailed("nobody hears this"))
    assert len(connection.sent) == 2


def test_one_session_waits_once(line, connection):
    line.add(connection.call("a"))
    line.add(connection.call("a"))
    assert connection.errors()[0]["error_type"] == "CallFailed"
    assert len(line) == 1


def tenants(line):
    return [call.head.tenant for call in line.take()]


def test_T_B5_tenants_are_served_in_turn(line, connection):
    for number in range(4):
        line.add(connection.call(f"a{number}", tenant="a"))
    line.add(connection.call("b0", tenant="b"))
    line.add(connection.call("c0", tenant="c"))
    line.add(connection.call("b1", tenant="b"))
    assert tenants(line) == ["a", "b", "c", "a", "b", "a", "a"]


def test_T_B5_a_tenant_that_may_not_is_passed_over_and_keeps_its_place(line, connection):
    for name in ("a0", "a1", "b0"):
        line.add(connection.call(name, tenant=name[0]))
    assert line.next(lambda tenant: tenant != "a").head.session == "b0"
    assert line.next(lambda tenant: tenant != "a") is None
    assert [call.head.session for call in line.take()] == ["a0", "a1"]


def test_T_B5_a_full_line_refuses_who_has_his_share_and_takes_who_has_not(connection):
    line = WaitingLine(5.0, lambda: "", size=10)
    for number in range(11):
        line.add(connection.call(f"a{number}", tenant="a"))
    (error,) = connection.errors()
    assert error["error_type"] == "Overloaded"
    assert error["args"]["retry_after"] >= 1
    line.add(connection.call("b", tenant="b"))
    assert tenants(line)[:2] == ["a", "b"]
    line.close()


def test_T_B5_D_48_who_waits_for_a_session_is_refused_as_overloaded(connection):
    line = WaitingLine(60.0, lambda: "", wait=0.1)
    line.add(connection.call("a"), crowded=True)
    gevent.sleep(0.4)
    (error,) = connection.errors()
    assert error["error_type"] == "Overloaded"
    assert "TIDEGATE_ADMISSION_WAIT" in error["message"]
    line.close()
