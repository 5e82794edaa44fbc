"""The HTTP/1.1 request that an endpoint plugin gets, as bytes (spec/http/05 section 3).

    POST /v1/chat?a=1&a=0&b=2 HTTP/1.1
    Host: dify.example
    User-Agent: curl/8
    Content-Length: 7
    Accept: */*                          … all others, sorted
    Dify-Hook-Id: abcd1234efgh5678
    Dify-Hook-Url: http://dify.example/e/abcd1234efgh5678/v1/chat

    {"x":1}

It is rebuilt from a request that was understood, never copied, so that it holds exactly one
request. The SDK refuses a whole request for a header name with an underscore; none is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, final
from urllib.parse import quote, quote_plus, unquote_to_bytes

#: What a plugin that is told no user agent gets: the reference's word.
USER_AGENT: Final = "Go-http-client/1.1"
_FIRST: Final = ("Host", "User-Agent", "Content-Length")
#: Of proxies before us, or about a framing that is not that of the new request.
_REMOVED: Final = frozenset(
    (
        *_FIRST,
        "X-Forwarded-For",
        "X-Real-Ip",
        "X-Forwarded",
        "X-Original-Forwarded-For",
        "X-Original-Url",
        "X-Original-Host",
        "Transfer-Encoding",
        "Trailer",
        "Dify-Hook-Id",
    )
)
_SAYS_ZERO: Final = frozenset(("POST", "PUT"))
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]+")
_PATH: Final = re.compile(r"/[!-~]*")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@final
@dataclass(frozen=True, slots=True)
class Hook:
    """A request to ``/e/<hook_id><path>`` as it was understood.

    ``path`` is what follows the hook, escaped; ``headers`` are names in any case with their
    values, repeated ones in the order in which they came; ``scheme`` is what the client used as
    far as we can know.
    """

    method: str
    hook_id: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    scheme: str = "http"


def raw_request(hook: Hook) -> bytes:
    """The request for the plugin."""
    headers = [(canonical(name), value) for name, value in hook.headers]
    given = dict(reversed(headers))  # of repeated ones, the first
    host = given.get("X-Original-Host") or given.get("Host", "")
    query = sorted_query(hook.query)
    target = hook.path + (f"?{query}" if query else "")
    lines = [
        f"{hook.method} {target} HTTP/1.1",
        f"Host: {host}",
        f"User-Agent: {given.get('User-Agent') or USER_AGENT}",
    ]
    if hook.body or hook.method in _SAYS_ZERO:
        lines.append(f"Content-Length: {len(hook.body)}")
    others = [one for one in headers if one[0] not in _REMOVED and _TOKEN.fullmatch(one[0])]
    others.append(("Dify-Hook-Id", hook.hook_id))
    if "Dify-Hook-Url" not in given:
        url = f"{hook.scheme}://{host}/e/{hook.hook_id}{hook.path}"
        others.append(("Dify-Hook-Url", url))
    others.sort(key=lambda one: one[0])  # stable: repeated ones keep their order
    lines += [f"{name}: {value}" for name, value in others]
    head = "\r\n".join(_CONTROL.sub(" ", line) for line in lines)
    return head.encode("latin-1", "replace") + b"\r\n\r\n" + hook.body


def canonical(name: str) -> str:
    """``content-type`` as ``Content-Type``."""
    return "-".join(part.capitalize() for part in name.split("-"))


def escaped_path(raw_target: str, prefix: str, decoded: str) -> str:
    """What follows ``prefix`` in the target as it came; else ``decoded``, escaped anew."""
    raw = raw_target.partition("?")[0]
    # As it came, where that is clean: what is decoded and escaped again is not always the same
    # path.
    if raw.startswith(prefix + "/") and _PATH.fullmatch(raw):
        return raw[len(prefix) :]
    return "/" + quote(decoded, safe="/:@!$&'()*+,;=~-._")


def sorted_query(query: str) -> str:
    """The query encoded anew, sorted by key; pairs that cannot be read are left out."""
    pairs = [pair for part in query.split("&") if (pair := _pair(part)) is not None]
    pairs.sort(key=lambda pair: pair[0])
    return "&".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in pairs)


def _pair(part: str) -> tuple[bytes, bytes] | None:
    # As Go reads a query: a semicolon was a separator once, and guessing is how filters are passed.
    if not part or ";" in part or _BAD_ESCAPE.search(part):
        return None
    key, _, value = part.partition("=")
    return _decoded(key), _decoded(value)


def _decoded(text: str) -> bytes:
    return unquote_to_bytes(text.replace("+", " "))


# --------------------------------------------------------------------------- answers


#: The framing is ours to say, and one Date is enough.
_OURS: Final = frozenset(
    ("Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade", "Date")
)


def answer_headers(given: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """A plugin's headers as they may be sent: one per name, on one line, no framing.

    Control characters become blanks; a name that is none is left out.
    """
    headers: dict[str, str] = {}
    for name, value in given:
        shown = canonical(name)
        if shown not in _OURS and _TOKEN.fullmatch(shown):
            headers.setdefault(shown, _one_line(value))
    return list(headers.items())


def _one_line(value: str) -> str:
    """UTF-8 as the bytes that it is, since a head is written in Latin-1."""
    return _CONTROL.sub(" ", value).strip().encode("utf-8", "replace").decode("latin-1")


_HTML: Final = re.compile(
    rb"<(?:!doctype html|html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p|!--)"
    rb"(?:[ >]|(?<=!--))",
    re.IGNORECASE,
)
_MAGIC: Final = (
    (b"%PDF-", "application/pdf"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b\x08", "application/x-gzip"),
)
_BINARY: Final = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")


def content_type_of(body: bytes) -> str:
    """The type of a body that its plugin gave none for, guessed from how it begins."""
    start = body[:512]
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    text = start.lstrip(b"\t\n\x0c\r ")
    if text.startswith(b"<?xml"):
        return "text/xml; charset=utf-8"
    if _HTML.match(text):
        return "text/html; charset=utf-8"
    return "application/octet-stream" if _BINARY.search(start) else "text/plain; charset=utf-8"
