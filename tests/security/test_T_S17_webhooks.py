"""The door that anybody may knock at: paths, sizes and headers that want out of it (T-S17)."""

from __future__ import annotations

import socket

import pytest

from tests.integration.door_world import world
from tests.integration.test_routes_endpoints import DECLARATION, HOOKED, Scripted, part
from tidegate.storage import endpoints

LIMIT = 64 << 10


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    plugin = Scripted()
    folder = tmp_path_factory.mktemp("hooks")
    with world(folder, {"acme/hooked": plugin}, TIDEGATE_WEBHOOK_BODY=str(LIMIT)) as site:
        site.install(HOOKED, DECLARATION)
        tenant = "0b7f485a-4c47-4aa1-b113-4a18462d122d"
        with site.services.database.write() as conn:
            made = endpoints.create(conn, tenant, HOOKED, user_id="u", name="n", settings={})
        site.call("GET", f"/e/{made.hook_id}/x", key="")
        yield site, plugin, made.hook_id


@pytest.fixture
def door(place):
    site, plugin, hook = place
    plugin.__init__()
    plugin.chunks = [part(status=200, headers={}), part("answered")]
    site.host.calls.clear()
    return site, plugin, hook


def raw(site, text: bytes) -> bytes:
    """Bytes as they are; no client cleans them up."""
    with socket.create_connection(site.address, timeout=10) as sock:
        sock.sendall(text)
        got = b""
        while b"\r\n\r\n" not in got or (b"chunked" in got.lower() and b"0\r\n\r\n" not in got):
            data = sock.recv(65536)
            if not data:
                break
            got += data
        return got


def seen(site) -> str:
    """The request as the plugin got it."""
    line = site.host.line()
    return bytes.fromhex(line["data"]["raw_http_request"]).decode("latin-1")


@pytest.mark.parametrize(
    "path",
    ["/../../metrics/", "/..%2f..%2fdebug/runtime", "/%2e%2e/%2e%2e/etc/passwd", "//debug/runtime"],
)
def test_T_S17_no_path_below_a_hook_leads_to_another_route(door, path):
    site, _, hook = door
    text = f"GET /e/{hook}{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    got = raw(site, text.encode())
    assert b"tidegate_" not in got
    assert b"fingerprint" not in got
    assert b"answered" in got or b"404" in got[:20]


@pytest.mark.parametrize("hook", ["../debug/runtime", "%2e%2e", "a" * 5000, "x' or '1'='1", "%00"])
def test_T_S17_a_hook_that_is_none_is_not_found_and_reaches_no_plugin(door, hook):
    site, _, _ = door
    text = f"GET /e/{hook.replace(' ', '%20')}/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert raw(site, text.encode())[9:12] in (b"404", b"400", b"414")
    assert site.host.calls == []


def test_T_S17_a_huge_body_is_refused_before_it_is_read(door):
    site, _, hook = door
    head = f"POST /e/{hook}/x HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 40}\r\n\r\n"
    assert raw(site, head.encode() + b"x" * 1000)[9:12] == b"413"
    assert site.host.calls == []


def test_T_S17_a_chunked_body_stops_at_the_limit(door):
    site, _, hook = door
    head = f"POST /e/{hook}/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"".join(b"4000\r\n" + b"x" * 0x4000 + b"\r\n" for _ in range(32))
    assert raw(site, head.encode() + body)[9:12] == b"413"
    assert site.host.calls == []


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "b\r\nSet-Cookie: stolen=1"},
        {"X-A": "b\nSet-Cookie: stolen=1"},
        {"X-A\r\nSet-Cookie": "stolen=1"},
        {"X-A": "b\r\n\r\n<script>"},
        {"Transfer-Encoding": "chunked, stolen=1", "Content-Length": "1"},
    ],
)
def test_T_S17_a_plugin_cannot_write_headers_of_its_own_making(door, headers):
    site, plugin, hook = door
    plugin.chunks = [part(status=200, headers=headers), part("body")]
    got = raw(site, f"GET /e/{hook}/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head = got.split(b"\r\n\r\n")[0].lower()
    assert b"\nset-cookie" not in head
    assert b"stolen" not in head or b"\n" not in head.split(b"stolen")[0].rsplit(b"\r\n", 1)[1]
    assert not got.split(b"\r\n\r\n", 1)[1].startswith(b"<script>")


def test_T_S17_headers_of_the_caller_stay_headers(door):
    site, _, hook = door
    text = (
        f"GET /e/{hook}/x?a=%0d%0aX-Injected:%201 HTTP/1.1\r\nHost: x\r\n"
        "X-Forwarded-For: 1.2.3.4\r\nConnection: close\r\n\r\n"
    )
    raw(site, text.encode())
    lines = seen(site).split("\r\n\r\n")[0].split("\r\n")
    assert not [line for line in lines[1:] if line.lower().startswith("x-injected")]


def test_T_S17_the_key_of_the_server_never_reaches_the_plugin(door):
    site, _, hook = door
    site.call("GET", f"/e/{hook}/x", key="")
    assert "secret" not in seen(site).lower()


@pytest.mark.parametrize("path", ["//evil.example/x", "/%5cevil.example", "/https://evil.example"])
def test_T_S17_no_redirect_leads_away_from_here(door, path):
    """The router adds or takes a slash; it never sends to another host."""
    site, _, hook = door
    for start in ("", f"/e/{hook}"):
        text = f"GET {start}{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        head = raw(site, text.encode()).split(b"\r\n\r\n")[0]
        location = [line for line in head.split(b"\r\n") if line.lower().startswith(b"location:")]
        for line in location:
            target = line.split(b":", 1)[1].strip()
            assert target.startswith(b"/")
            assert not target.startswith((b"//", b"/\\"))


def test_T_S17_a_refused_head_has_no_body(door):
    site, _, hook = door
    text = f"HEAD /e/{hook}/x HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 40}\r\n\r\n"
    head, _, body = raw(site, text.encode()).partition(b"\r\n\r\n")
    assert head[9:12] == b"413"
    assert body == b""
