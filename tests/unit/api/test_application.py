"""The application on a real worker: keys, errors, limits of bodies, drain, log."""

from __future__ import annotations

import json
import socket

import pytest

from tests.unit.api.conftest import HEAD, request
from tidegate.runtime.limits import most_connections, most_dispatched
from tidegate.settings import Settings


def test_a_known_path_is_answered_and_the_connection_kept(connect) -> None:
    client = connect()
    for _ in range(3):
        client.send(request("GET", "/plain"))
        status, headers, body = client.answer()
        assert (status, body) == (200, b"{}")
        assert headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize(
    "key", [b"", b"X-Api-Key: wrong\r\n", b"X-Api-Key: \r\n", b"X-Api-Key: \xe9\r\n"]
)
def test_without_the_key_there_is_401_and_nothing_else(connect, key: bytes) -> None:
    client = connect()
    client.send(request("GET", "/plain", head=b"Host: x\r\n" + key))
    status, _, body = client.answer()
    assert status == 401
    assert json.loads(json.loads(body)["message"])["error_type"] == "PluginDaemonUnauthorizedError"


def test_an_open_route_asks_for_no_key(connect) -> None:
    client = connect()
    client.send(request("GET", "/open", head=b"Host: x\r\n"))
    assert client.answer()[0] == 200


@pytest.mark.parametrize("line", [("POST", "/plain"), ("GET", "/nothing"), ("HEAD", "/plain")])
def test_what_no_route_serves_is_404(connect, line: tuple[str, str]) -> None:
    client = connect()
    client.send(request(*line, head=b"Host: x\r\nConnection: close\r\n"))
    answer = client.rest()
    assert answer.startswith(b"HTTP/1.1 404")
    assert line[0] == "HEAD" or answer.endswith(b'{"code":"not_found","message":"route not found"}')


def test_a_slash_too_few_or_too_many_is_redirected(connect) -> None:
    client = connect()
    client.send(request("GET", "/folder?a=1&b=%2F"))
    status, headers, _ = client.answer()
    assert (status, headers["location"]) == (301, "/folder/?a=1&b=%2f")
    client.send(request("GET", "/plain/"))
    status, headers, _ = client.answer()
    assert (status, headers["location"]) == (301, "/plain")


def test_an_unexpected_error_is_500_and_tells_nothing(connect) -> None:
    client = connect()
    client.send(request("GET", "/broken"))
    status, _, body = client.answer()
    assert status == 500
    assert b"secret" not in body
    assert json.loads(body)["code"] == -500
    client.send(request("GET", "/plain"))
    assert client.answer()[0] == 200


# ------------------------------------------------------------------ bodies


def test_a_body_arrives_whole_however_it_is_cut(harness, connect) -> None:
    client = connect()
    client.send(request("POST", "/body"))
    assert client.answer()[0] == 200
    client.send(request("POST", "/body", b"hello")[:-3])
    client.send(b"llo")
    assert client.answer()[0] == 200
    assert harness.bodies == [b"", b"hello"]


def test_a_chunked_body_is_read(harness, connect) -> None:
    client = connect()
    chunked = b"POST %b HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    for path in (b"/body", b"/pieces"):
        client.send(chunked % path + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        assert client.answer()[0] == 200
    assert harness.bodies == [b"abcde", b"abcde"]


def test_D_40_a_body_over_the_limit_is_413_and_ends_the_connection(make_harness, connect) -> None:
    harness = make_harness(TIDEGATE_MAX_BODY="1000")
    for path in ("/body", "/pieces"):
        client = connect(harness.address)
        client.send(request("POST", path, b"x" * 1001))
        status, headers, body = client.answer()
        assert (status, headers["connection"]) == (413, "close")
        assert "TIDEGATE_MAX_BODY" in json.loads(body)["message"]
        assert client.rest() == b""
    client = connect(harness.address)
    client.send(request("POST", "/body", b"x" * 1000))
    assert client.answer()[0] == 200


def test_a_chunked_body_over_the_limit_is_413_too(make_harness, connect) -> None:
    harness = make_harness(TIDEGATE_MAX_BODY="1000")
    client = connect(harness.address)
    client.send(b"POST /body HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    client.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
    client.send(b"0\r\n\r\n")
    assert client.answer()[0] == 413
    assert client.rest() == b""


def test_half_a_body_is_408_and_ends_the_connection(make_harness, connect) -> None:
    harness = make_harness(TIDEGATE_BODY_TIMEOUT="0.1")
    for path in ("/body", "/pieces"):
        client = connect(harness.address)
        client.send(request("POST", path, b"hello")[:-2])
        status, headers, body = client.answer()
        assert (status, headers["connection"]) == (408, "close")
        assert "TIDEGATE_BODY_TIMEOUT" in json.loads(body)["message"]
        assert client.rest() == b""


def test_a_body_that_the_client_cuts_short_is_told_and_ends_the_connection(
    harness, connect
) -> None:
    client = connect()
    client.send(request("POST", "/body", b"hello")[:-2])
    client.sock.shutdown(socket.SHUT_WR)
    status, _, body = client.answer()
    assert status == 400
    assert "3 of 5 bytes" in json.loads(body)["message"]


def test_a_broken_chunk_is_400_and_ends_the_connection(connect) -> None:
    client = connect()
    client.send(b"POST /body HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n")
    status, headers, _ = client.answer()
    assert (status, headers["connection"]) == (400, "close")


# ------------------------------------------------------------------ drain, load, log


def test_what_is_on_its_way_when_draining_begins_is_served_and_closes(harness, connect) -> None:
    client = connect()
    client.send(request("GET", "/plain"))
    assert client.answer()[0] == 200
    harness.drain.begin(5)
    client.send(request("GET", "/plain"))
    status, headers, _ = client.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert client.rest() == b""


def test_a_draining_server_refuses_with_503_and_closes(harness, connect) -> None:
    client = connect()
    client.send(request("GET", "/plain"))
    assert client.answer()[0] == 200
    harness.drain.begin(0)
    client.send(request("GET", "/plain"))
    status, headers, body = client.answer()
    assert (status, headers["connection"], headers["retry-after"]) == (503, "close", "1")
    assert json.loads(body)["code"] == -500
    assert client.rest() == b""


def test_the_load_is_counted_and_given_back(harness, connect) -> None:
    client = connect()
    client.send(request("GET", "/broken"))
    client.answer()
    assert (harness.load.requests, harness.load.dispatching) == (0, 0)


def test_R24_more_calls_than_there_is_room_for_are_refused_at_once(harness, connect) -> None:
    """Whatever else: nobody waits for a connection that is taken by who waits for him."""
    most = most_dispatched(harness.settings)
    harness.load.dispatching = most
    client = connect()
    client.send(request("POST", "/stream"))
    status, headers, body = client.answer()
    assert (status, headers["retry-after"]) == (429, "1")
    assert json.loads(body)["code"] == -500
    client.send(request("GET", "/plain"))  # everything else is answered
    assert client.answer()[0] == 200
    assert harness.load.dispatching == most
    harness.load.dispatching = 0


@pytest.mark.parametrize(("runs", "dispatched"), [(1, 1001), (10, 1010), (5000, 10000)])
def test_R24_there_is_room_for_as_many_requests_as_the_runs_may_lead_to(
    runs: int, dispatched: int
) -> None:
    settings = Settings.load({"SERVER_WORKER_CONNECTIONS": str(runs)})
    assert most_dispatched(settings, 1 << 18) == dispatched
    assert most_connections(settings, 1 << 18) > dispatched


@pytest.mark.parametrize(("files", "dispatched"), [(256, 160), (1024, 704), (8, 5)])
def test_T_R1_there_is_no_more_room_than_files_and_some_to_refuse_on(
    files: int, dispatched: int
) -> None:
    settings = Settings.load({"SERVER_WORKER_CONNECTIONS": "5000"})
    assert most_dispatched(settings, files) == dispatched
    assert dispatched < most_connections(settings, files) < files
