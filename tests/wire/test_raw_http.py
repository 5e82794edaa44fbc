"""The request that an endpoint plugin gets, byte for byte, and its answer's headers."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate.wire.raw_http import (
    Hook,
    answer_headers,
    content_type_of,
    escaped_path,
    raw_request,
    sorted_query,
)

HOOK = "abcd1234efgh5678"


def built(**given: Any) -> str:
    hook = {
        "method": "GET",
        "hook_id": HOOK,
        "path": "/q",
        "query": "",
        "headers": {"HOST": "dify.example", "USER-AGENT": "u"},
        "body": b"",
    } | given
    if isinstance(hook["headers"], dict):
        hook["headers"] = tuple(hook["headers"].items())
    return raw_request(Hook(**hook)).decode("latin-1")


def test_the_bytes_of_the_reference() -> None:
    headers = {
        "HOST": "dify.example",
        "USER-AGENT": "curl/8",
        "ACCEPT": "*/*",
        "Content-Type": "application/json",
        "COOKIE": "k=v",
        "X-CUSTOM": "v",
        "X-FORWARDED-FOR": "1.2.3.4",
        "X-REAL-IP": "1.1.1.1",
        "TRANSFER-ENCODING": "chunked",
    }
    text = built(
        method="POST", path="/v1/chat", query="b=2&a=1&a=0", headers=headers, body=b'{"x":1}'
    )
    assert text == (
        "POST /v1/chat?a=1&a=0&b=2 HTTP/1.1\r\n"
        "Host: dify.example\r\n"
        "User-Agent: curl/8\r\n"
        "Content-Length: 7\r\n"
        "Accept: */*\r\n"
        "Content-Type: application/json\r\n"
        "Cookie: k=v\r\n"
        f"Dify-Hook-Id: {HOOK}\r\n"
        f"Dify-Hook-Url: http://dify.example/e/{HOOK}/v1/chat\r\n"
        "X-Custom: v\r\n"
        "\r\n"
        '{"x":1}'
    )


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [
        ("POST", b"", "0"),
        ("PUT", b"", "0"),
        ("GET", b"", None),
        ("DELETE", b"", None),
        ("HEAD", b"", None),
        ("GET", b"hi", "2"),
        ("DELETE", b"hi", "2"),
    ],
)
def test_errata_2_the_length_is_said_where_a_body_may_be(
    method: str, body: bytes, length: str | None
) -> None:
    text = built(method=method, body=body)
    expected = "" if length is None else f"Content-Length: {length}\r\n"
    assert f"User-Agent: u\r\n{expected}Dify-Hook-Id" in text
    assert text.endswith("\r\n\r\n" + body.decode())


def test_a_client_without_a_name_gets_the_references() -> None:
    assert "User-Agent: Go-http-client/1.1\r\n" in built(headers={"HOST": "h"})


def test_the_public_host_and_scheme_are_told() -> None:
    text = built(headers={"HOST": "inner", "X-ORIGINAL-HOST": "orig.example"}, scheme="https")
    assert "Host: orig.example\r\n" in text
    assert f"Dify-Hook-Url: https://orig.example/e/{HOOK}/q\r\n" in text
    assert "X-Original-Host" not in text


def test_the_hook_is_ours_to_say_and_its_url_may_be_the_clients() -> None:
    text = built(headers={"DIFY-HOOK-ID": "evil", "DIFY-HOOK-URL": "http://mine"})
    assert f"Dify-Hook-Id: {HOOK}\r\n" in text
    assert "Dify-Hook-Url: http://mine\r\n" in text


def test_repeated_headers_stay_as_they_came() -> None:
    given = (
        ("X-MULTI", "2"), ("HOST", "h"), ("X-Alone", "a"), ("X-MULTI", "1"), ("COOKIE", "a=1"),
        ("COOKIE", "b=2"), ("X-ORIGINAL-HOST", "one"), ("X-ORIGINAL-HOST", "two"),
    )  # fmt: skip
    text = built(headers=given)
    assert "X-Alone: a\r\nX-Multi: 2\r\nX-Multi: 1\r\n\r\n" in text
    assert "Cookie: a=1\r\nCookie: b=2\r\nDify-Hook-Id" in text
    assert "\r\nHost: one\r\n" in text
    assert "two" not in text


def test_names_that_the_sdk_refuses_and_line_ends_do_not_come_through() -> None:
    text = built(headers={"HOST": "h", "x_under": "1", "X-A": "a\r\nX-Evil: 1", "X B": "1"})
    assert "under" not in text
    assert "X-A: a  X-Evil: 1\r\n" in text
    assert "X B" not in text
    assert text.count("\r\n\r\n") == 1


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("b=2&a=1&a=0&bad=%zz&c", "a=1&a=0&b=2&c="),
        ("", ""),
        ("&&", ""),
        ("a;b=1&c=2", "c=2"),
        ("q=a+b%20c", "q=a+b+c"),
        ("%C3%BC=%e2%82%ac&x=~-._", "x=~-._&%C3%BC=%E2%82%AC"),
        ("a=1=2", "a=1%3D2"),
        ("raw=\u00fc", "raw=%C3%BC"),
    ],
)
def test_queries_are_encoded_anew_and_sorted(query: str, expected: str) -> None:
    assert sorted_query(query) == expected


@pytest.mark.parametrize(
    ("target", "decoded", "expected"),
    [
        ("/e/h/a%20b/%2Fx?q=1", "a b//x", "/a%20b/%2Fx"),
        ("/e/h/", "", "/"),
        ("http://x/e/h/a b", "a b", "/a%20b"),
        ("", "\u00fc/x", "/%C3%BC/x"),
        ("/e/h/\x01", "\x01", "/%01"),
    ],
)
def test_paths_keep_their_escapes_or_get_new_ones(target: str, decoded: str, expected: str) -> None:
    assert escaped_path(target, "/e/h", decoded) == expected


# ------------------------------------------------------------------ answers


def test_an_answers_headers_are_cleaned() -> None:
    given = [
        ("content-type", "text/x"),
        ("X-N", "a\r\nX-Evil: 1"),
        ("Content-Type", "second"),
        ("bad name", "1"),
        ("", "1"),
        ("transfer-encoding", "chunked"),
        ("Connection", "close"),
        ("date", "x"),
        ("X-U", "\u20ac"),
    ]
    assert answer_headers(given) == [
        ("Content-Type", "text/x"),
        ("X-N", "a  X-Evil: 1"),
        ("X-U", "\u20ac".encode().decode("latin-1")),
    ]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"plain text", "text/plain; charset=utf-8"),
        ("gr\u00fc\u00dfe".encode(), "text/plain; charset=utf-8"),
        (b"\n <!DOCTYPE html><html>", "text/html; charset=utf-8"),
        (b"<p>x", "text/html; charset=utf-8"),
        (b"<pre>x", "text/plain; charset=utf-8"),
        (b"<?xml version='1.0'?>", "text/xml; charset=utf-8"),
        (b'{"a":1}', "text/plain; charset=utf-8"),
        (b"\x00\x01", "application/octet-stream"),
        (b"\x89PNG\r\n\x1a\nx", "image/png"),
    ],
)
def test_a_type_is_guessed_where_the_plugin_gives_none(body: bytes, kind: str) -> None:
    assert content_type_of(body) == kind
