"""The link between a real server and real clients, over both kinds of socket."""

import socket

import gevent
import pytest
from gevent.event import Event

from tidegate.errors import HostLost, StartRefused
from tidegate.link import LinkClient, LinkServer, handshake, peer, wait_writable
from tidegate.link import server as server_module
from tidegate.link.server_call import STALLED
from tidegate.wire.frames import Kind, encode
from tidegate.wire.heads import HostHead, PluginHead, encode_open
from tidegate.wire.pieces import whole

KEY = b"k" * 32


class Recorder:
    """A handler that answers by the plugin's name, and remembers what it saw."""

    def __init__(self):
        self.calls = []
        self.cancelled = []
        self.arrived = Event()

    def opened(self, call):
        self.calls.append(call)
        call.on_cancel = lambda: self.cancelled.append(call)
        self.arrived.set()
        if call.head.plugin == "echo":
            call.buffer += [b'{"n":1}', whole(call.payload)]
            call.finish()
        elif call.head.plugin == "error":
            call.send(b"1")
            call.fail(b'{"error_type":"E","message":"m","args":null}')


class Collector:
    """A sink that keeps what came."""

    def __init__(self):
        self.bodies = []
        self.errors = []
        self.ends = 0
        self.ended = Event()

    def push(self, body):
        self.bodies.append(body)

    def fail(self, error):
        self.errors.append(error)

    def finish(self):
        self.ends += 1
        self.ended.set()


def head(name="echo"):
    return PluginHead(name, "s", "tool", "invoke_tool", "t", 5.0, "caller")


@pytest.fixture
def handler():
    return Recorder()


@pytest.fixture
def server(handler, tmp_path):
    server = LinkServer(handler, key=KEY, path=tmp_path / "host.sock", tcp="127.0.0.1:0")
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["unix", "tcp"])
def client(request, server, tmp_path):
    notices = []
    address = tmp_path / "host.sock" if request.param == "unix" else f"127.0.0.1:{server.tcp_port}"
    client = LinkClient(address, key=KEY, on_notice=notices.append)
    client.notices = notices
    yield client
    client.close()


def wait_for(condition, seconds=5):
    with gevent.Timeout(seconds):
        while not condition():
            gevent.sleep(0.001)


def test_a_call_gets_its_chunks_in_one_body_and_one_end(client):
    sink = Collector()
    client.open(head(), b"payload", sink)
    assert sink.ended.wait(5)
    assert sink.bodies == [b'{"n":1}\npayload']
    assert (sink.errors, sink.ends) == ([], 1)


def test_bodies_of_many_frames_arrive_whole_in_both_directions(client):
    payload = bytes(range(33, 120)) * 60_000
    sink = Collector()
    client.open(head(), payload, sink)
    assert sink.ended.wait(10)
    assert b"".join(sink.bodies) == b'{"n":1}\n' + payload


def test_an_error_comes_after_what_was_sent_before_it(client):
    sink = Collector()
    client.open(head("error"), b"", sink)
    assert sink.ended.wait(5)
    assert sink.bodies == [b"1"]
    assert len(sink.errors) == 1


def test_a_cancel_reaches_the_handler_once(client, handler):
    call = client.open(head("silent"), b"", Collector())
    handler.arrived.wait(5)
    call.cancel()
    call.cancel()
    wait_for(lambda: handler.cancelled)
    assert handler.cancelled == handler.calls


def test_end_and_cancel_may_cross(client, handler, server):
    sink = Collector()
    call = client.open(head("silent"), b"", sink)
    handler.arrived.wait(5)
    handler.calls[0].finish()
    call.cancel()
    wait_for(lambda: server.late_frames == 1 and client.late_frames == 1)
    assert (handler.cancelled, sink.ends) == ([], 0)


def test_what_is_sent_after_the_end_is_dropped(client, handler):
    sink = Collector()
    client.open(head("silent"), b"", sink)
    handler.arrived.wait(5)
    call = handler.calls[0]
    call.finish()
    call.send(b"late")
    call.fail(b"{}")
    call.finish()
    sink.ended.wait(5)
    other = Collector()
    client.open(head(), b"x", other)
    other.ended.wait(5)
    assert (sink.bodies, sink.errors, sink.ends) == ([], [], 1)


def test_a_client_that_leaves_cancels_its_calls(client, handler, server):
    for _ in range(3):
        client.open(head("silent"), b"", Collector())
    wait_for(lambda: len(handler.calls) == 3)
    client.close()
    wait_for(lambda: len(handler.cancelled) == 3)
    wait_for(lambda: server.connections == 0)


def test_a_host_that_ends_ends_every_call_typed(client, handler, server):
    sinks = [Collector() for _ in range(3)]
    for sink in sinks:
        client.open(head("silent"), b"", sink)
    wait_for(lambda: len(handler.calls) == 3)
    server.stop()
    for sink in sinks:
        assert sink.ended.wait(5)
        assert b"HostLost" in sink.errors[0]
        assert sink.ends == 1
    with pytest.raises(HostLost, match="tidegate host"):
        client.open(head(), b"", Collector())


def test_a_defect_at_one_calls_end_leaves_the_others_theirs(client, handler, server):
    broken, healthy = Collector(), Collector()
    broken.finish = lambda: 1 / 0
    client.open(head("silent"), b"", broken)
    client.open(head("silent"), b"", healthy)
    wait_for(lambda: len(handler.calls) == 2)
    server.stop()
    assert healthy.ended.wait(5)
    wait_for(lambda: not client.connected)


def test_a_client_that_is_closed_while_it_dials_keeps_no_connection(server, tmp_path, monkeypatch):
    client = LinkClient(tmp_path / "host.sock", key=KEY, on_notice=bytes)
    dial = client._dial

    def closed_meanwhile():
        sock = dial()
        client.close()
        return sock

    monkeypatch.setattr(client, "_dial", closed_meanwhile)
    with pytest.raises(HostLost, match="stops"):
        client.connect()
    assert not client.connected
    wait_for(lambda: server.connections == 0)


def test_notices_reach_every_connection(client, server):
    client.connect()
    wait_for(lambda: server.connections == 1)
    server.notify(b'{"generation":4}')
    wait_for(lambda: client.notices == [b'{"generation":4}'])


def test_numbers_are_never_used_twice_on_a_connection(server, tmp_path, handler):
    client = LinkClient(tmp_path / "host.sock", key=KEY, on_notice=bytes, last_number=3)
    sinks = [Collector() for _ in range(7)]
    for sink in sinks:
        client.open(head("silent"), b"", sink)
    wait_for(lambda: len(handler.calls) == 7)
    assert server.connections == 3
    per_connection = {}
    for call in handler.calls:
        per_connection.setdefault(call._connection, []).append(call.number)
    assert sorted(per_connection.values()) == [[1], [1, 2, 3], [1, 2, 3]]
    for call in handler.calls:
        call.finish()
    assert all(sink.ended.wait(5) for sink in sinks)
    client.close()


@pytest.mark.parametrize("key", [b"", b"other"])
def test_another_key_is_turned_away(server, tmp_path, key):
    client = LinkClient(tmp_path / "host.sock", key=key, on_notice=bytes)
    with pytest.raises(HostLost):
        client.connect()
    assert server.connections == 0


def send_a_byte_now_and_then(sock):
    while True:
        sock.sendall(b"x")
        gevent.sleep(0.1)


def test_strangers_are_heard_for_a_while_all_in_all_and_not_too_many(server, tmp_path, monkeypatch):
    monkeypatch.setattr(handshake, "LIMIT", 0.5)
    monkeypatch.setattr(server_module, "MOST_STRANGERS", 3)
    dials = []
    for _ in range(4):
        dials.append(socket.create_connection(("127.0.0.1", server.tcp_port)))
        wait_for(lambda: sum(server._strangers.values()) == min(3, len(dials)))
    hellos = [one.recv(100) for one in dials]
    assert [bool(hello) for hello in hellos] == [True, True, True, False]
    with gevent.Timeout(10), pytest.raises(OSError, match=r"reset|pipe"):
        send_a_byte_now_and_then(dials[0])
    wait_for(lambda: not sum(server._strangers.values()))
    for one in dials:
        one.close()


def test_a_peer_that_speaks_no_frames_is_closed(client, server):
    client.connect()
    wait_for(lambda: server.connections == 1)
    client._connection.outbox.write([b"GET / HTTP/1.1\r\n\r\n"])
    wait_for(lambda: server.connections == 0)


def test_a_second_host_on_one_socket_is_refused(server, handler, tmp_path):
    with pytest.raises(StartRefused, match="already serves"):
        LinkServer(handler, key=KEY, path=tmp_path / "host.sock").start()


def test_the_socket_of_a_dead_host_is_taken_over(handler, tmp_path):
    path = tmp_path / "left.sock"
    with gevent.socket.socket(gevent.socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = LinkServer(handler, key=KEY, path=path)
    server.start()
    assert (path.stat().st_mode & 0o777) == 0o600
    server.stop()
    assert not path.exists()


def test_a_machine_that_is_gone_without_a_word_is_noticed_within_a_minute():
    with socket.socket() as sock:
        handshake.widen(sock)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        first, every, probes = (sock.getsockopt(socket.IPPROTO_TCP, one) for one in options)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert first + every * probes == 60


def test_an_unusable_tcp_address_is_one_line(handler, tmp_path):
    with pytest.raises(StartRefused, match="host:port"):
        LinkServer(handler, key=KEY, path=tmp_path / "a.sock", tcp="nonsense").start()


def test_control_heads_pass(server, handler, client):
    opened = []
    handler.opened = lambda call: (opened.append(call.head), call.finish())
    sink = Collector()
    client.open(HostHead("figures", {"a": 1}), b"", sink)
    assert sink.ended.wait(5)
    assert opened[0].op == "figures"


@pytest.fixture
def stopped_peer(server, tmp_path):
    """A process that opened a call and was stopped: its socket stands, nobody reads."""
    sock = gevent.socket.socket(gevent.socket.AF_UNIX)
    sock.connect(str(tmp_path / "host.sock"))
    handshake.connect(sock, KEY)
    sock.sendall(b"".join(encode(Kind.OPEN, 1, encode_open(head("stopped")))))
    yield sock
    sock.close()


def test_a_call_behind_a_stopped_peer_ends_at_its_budget_and_no_other(
    server, handler, stopped_peer, tmp_path
):
    server.call_budget = 1 << 20
    moving = LinkClient(tmp_path / "host.sock", key=KEY, on_notice=bytes)
    sink = Collector()
    moving.open(head("moving"), b"", sink)
    wait_for(lambda: len(handler.calls) == 2)
    stopped, healthy = sorted(handler.calls, key=lambda call: call.head.plugin != "stopped")
    sent = 0
    while not stopped.closed and sent < 100:
        stopped.send(b"x" * (1 << 18))
        sent += 1
    assert stopped.closed
    assert handler.cancelled == [stopped]
    assert stopped._connection.outbox.pending < 4 << 20
    healthy.send(b"still here")
    wait_for(lambda: sink.bodies == [b"still here"])
    moving.close()


def test_calls_behind_a_stopped_peer_share_what_may_wait_for_it(
    server, handler, stopped_peer, monkeypatch
):
    """A thousand streams would hold a thousand budgets of the host's memory."""
    monkeypatch.setattr(peer, "MOST_PENDING", 24 << 20)
    for number in range(2, 17):
        stopped_peer.sendall(b"".join(encode(Kind.OPEN, number, encode_open(head("stopped")))))
    wait_for(lambda: len(handler.calls) == 16)
    calls = list(handler.calls)
    for _ in range(7):  # MiB of each: none is over its own budget of 8
        for call in calls:
            call.send(b"x" * (1 << 20))
    assert any(call.ended for call in calls)
    assert calls[0]._connection.outbox.pending < 28 << 20


def test_a_peer_that_keeps_up_but_is_never_done_costs_no_call(server, handler, stopped_peer):
    server.call_budget = 8 << 20
    handler.arrived.wait(5)
    (call,) = handler.calls
    piece = b"x" * (1 << 18)
    while call._connection.outbox.pending < 2 << 20:
        call.send(piece)
    for _ in range(100):
        call.send(piece)
        stopped_peer.recv(1 << 18, socket.MSG_WAITALL)
        gevent.sleep(0)
        assert call._connection.outbox.pending > 0
    assert not call.closed


def test_a_stopped_peer_is_not_waited_for(server, handler, stopped_peer):
    server.call_budget = 64 << 20
    handler.arrived.wait(5)
    (call,) = handler.calls
    while call._connection.outbox.pending < 8 << 20:
        call.send(b"x" * (1 << 18))
    gevent.sleep(STALLED)
    with gevent.Timeout(STALLED / 2):
        wait_writable([call])


def test_output_waits_in_order_for_a_peer_that_is_slow(server, handler, tmp_path):
    client = LinkClient(tmp_path / "host.sock", key=KEY, on_notice=bytes)
    sink = Collector()
    client.open(head("silent"), b"", sink)
    handler.arrived.wait(5)
    call = handler.calls[0]
    chunks = [b"%07d" % number + b"x" * 40_000 for number in range(150)]  # 6 MB without a switch
    for chunk in chunks:
        call.send(chunk)
    assert call._connection.outbox.pending > 0
    call.finish()
    assert sink.ended.wait(10)
    assert b"\n".join(sink.bodies).split(b"\n") == chunks
    client.close()


def test_a_double_number_closes_the_connection(client, server, handler):
    call = client.open(head("silent"), b"", Collector())
    handler.arrived.wait(5)
    again = encode(Kind.OPEN, 1, b'{"to":"host","op":"x"}\n')
    client._connection.outbox.write(again)
    wait_for(lambda: server.connections == 0)
    assert handler.cancelled == handler.calls
    call.cancel()


class Clumsy(Collector):
    """A sink with a defect in one of its three doors."""

    def __init__(self, door):
        super().__init__()
        self._door = door

    def _stumble(self, door):
        if door == self._door:
            self._door = ""
            raise ValueError("a defect")

    def push(self, body):
        self._stumble("push")
        super().push(body)

    def fail(self, error):
        self._stumble("fail")
        super().fail(error)

    def finish(self):
        self._stumble("finish")
        super().finish()


@pytest.mark.parametrize("door", ["push", "fail", "finish"])
def test_a_defect_on_one_calls_frame_costs_that_call_only(server, client, handler, door):
    other, clumsy = Collector(), Clumsy(door)
    client.open(head("silent"), b"", other)
    client.open(head("error"), b"", clumsy)
    assert clumsy.ended.wait(5)
    assert b"not understood" in clumsy.errors[-1]
    handler.calls[0].send(b"1")
    handler.calls[0].finish()
    assert other.ended.wait(5)
    assert (other.bodies, other.errors) == ([b"1"], [])


def test_a_call_that_the_host_cannot_begin_or_end_costs_that_call_only(server, client, handler):
    other, broken = Collector(), Collector()
    client.open(head("silent"), b"", other)
    assert handler.arrived.wait(5)

    def defect(*_):
        raise ValueError("a defect")

    opened, handler.opened = handler.opened, defect
    client.open(head("silent"), b"", broken)
    assert broken.ended.wait(5)
    assert b"could not begin" in broken.errors[0]
    handler.opened = opened
    handler.arrived.clear()
    leaving = client.open(head("silent"), b"", Collector())
    assert handler.arrived.wait(5)
    handler.calls[-1].on_cancel = defect
    leaving.cancel()
    echo = Collector()
    client.open(head("echo"), b"2", echo)
    assert echo.ended.wait(5)
    handler.calls[0].finish()
    assert other.ended.wait(5)
    assert other.errors == []
