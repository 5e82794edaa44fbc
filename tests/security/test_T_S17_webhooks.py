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


def asked(site, target, method="GET"):
    """(status, headers in lower case, body) of one request as it is."""
    text = f"{method} {target} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    return taken_apart(raw(site, text.encode()))


def taken_apart(got):
    head, _, body = got.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = [line.split(": ", 1) for line in lines[1:]]
    return int(lines[0].split(" ")[1]), [(name.lower(), value) for name, value in headers], body


@pytest.mark.parametrize(
    "path",
    ["/../../metrics/", "/..%2f..%2fdebug/runtime", "/%2e%2e/%2e%2e/etc/passwd", "//debug/runtime"],
)
def test_T_S17_no_path_below_a_hook_leads_to_another_route(door, path):
    """It is the plugin's, dots and all: nobody here takes it for a place."""
    site, _, hook = door
    assert asked(site, f"/e/{hook}{path}")[::2] == (200, b"8\r\nanswered\r\n0\r\n\r\n")
    assert seen(site).startswith(f"GET {path} HTTP/1.1\r\n")


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
    ("headers", "shown"),
    [
        ({"X-A": "b\r\nSet-Cookie: c=1"}, [("x-a", "b  Set-Cookie: c=1")]),
        ({"X-A": "b\nSet-Cookie: c=1"}, [("x-a", "b Set-Cookie: c=1")]),
        ({"X-A": "b\rSet-Cookie: c=1"}, [("x-a", "b Set-Cookie: c=1")]),
        ({"X-A": "b\x00\x0b\x7fc"}, [("x-a", "b   c")]),
        ({"X-A": "b\u010d\u010aSet-Cookie: c=1"}, [("x-a", "b\u010d\u010aSet-Cookie: c=1")]),
        ({"X-A\r\nSet-Cookie": "c=1"}, []),
        ({"X-A: b\r\nSet-Cookie": "c=1", "": "x", "X A": "y"}, []),
        ({"X-A": "b\r\n\r\n<script>"}, [("x-a", "b    <script>")]),
        ({"Content-Type": "text/plain\r\nX-B: c"}, [("content-type", "text/plain  X-B: c")]),
        ({"Transfer-Encoding": "gzip, chunked", "Content-Length": "1"}, [("content-length", "1")]),
        ({"transfer-encoding": "x", "CONNECTION": "upgrade", "Upgrade": "h2c"}, []),
        ({"Content-Length": "1", "content-length": "2"}, [("content-length", "1")]),
        ({"Content-Length": "+4"}, []),
        ({"Content-Length": "4\r\nX-B: c"}, []),
        ({"Date": "never", "Keep-Alive": "timeout=9"}, []),
    ],
)
def test_T_S17_a_plugin_cannot_write_headers_of_its_own_making(door, headers, shown):
    """Exactly the headers that are to be there, each once, and one framing, which is ours."""
    site, plugin, hook = door
    plugin.chunks = [part(status=200, headers=headers), part("body")]
    status, found, body = asked(site, f"/e/{hook}/x")
    assert status == 200
    kept = [one for one in found if one[0] not in ("date", "connection", "transfer-encoding")]
    typed = [] if "content-type" in dict(shown) else [("content-type", "text/plain; charset=utf-8")]
    expected = [(name, value.encode().decode("latin-1")) for name, value in (*shown, *typed)]
    assert sorted(kept) == sorted(expected)
    assert dict(found)["connection"] == "close"
    length = dict(shown).get("content-length")
    framing = [value for name, value in found if name == "transfer-encoding"]
    assert framing == ([] if length else ["chunked"])
    assert body == (b"body"[: int(length)] if length else b"4\r\nbody\r\n0\r\n\r\n")


@pytest.mark.parametrize(("method", "status"), [("GET", 204), ("GET", 304), ("HEAD", 200)])
def test_T_S17_an_answer_without_a_body_has_none_whatever_the_plugin_says(door, method, status):
    """And 204 has no length: who believed one would take the next answer for its body."""
    site, plugin, hook = door
    plugin.chunks = [part(status=status, headers={"Content-Length": "4"}), part("body")]
    answer, found, body = asked(site, f"/e/{hook}/x", method)
    assert (answer, body) == (status, b"")
    assert dict(found).get("content-length") == (None if status == 204 else "4")
    assert "transfer-encoding" not in dict(found)


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


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/health/check/", "/health/check"),
        ("/e/hook", "/e/hook/"),
        ("/e/hook?next=//evil.example", "/e/hook/?next=//evil.example"),
        ("/e/%5cevil.example", "/e/%5Cevil.example/"),
        ("/e/%0d%0aSet-Cookie:c=1", "/e/%0D%0ASet-Cookie%3Ac%3D1/"),
        ("http://evil.example/e/hook", "/e/hook/"),
    ],
)
def test_T_S17_a_redirect_stays_here(door, target, location):
    """The router adds or takes a slash, and does not ask the request which host this is."""
    status, found, _ = asked(door[0], target)
    assert status == 301
    assert [value for name, value in found if name == "location"] == [location]


@pytest.mark.parametrize(
    "path", ["//evil.example/x/", "//evil.example", "/%5cevil.example/", "//e/hook", "/%2fe/hook/"]
)
def test_T_S17_what_looks_like_another_host_is_no_redirect(door, path):
    status, found, _ = asked(door[0], path)
    assert status == 404
    assert "location" not in dict(found)


def test_T_S17_a_refused_head_has_no_body(door):
    site, _, hook = door
    text = f"HEAD /e/{hook}/x HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 40}\r\n\r\n"
    head, _, body = raw(site, text.encode()).partition(b"\r\n\r\n")
    assert head[9:12] == b"413"
    assert body == b""
