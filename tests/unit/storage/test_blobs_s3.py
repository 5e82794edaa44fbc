"""The store in a bucket: the same promises as the folder's, against moto in a process."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import gevent
import pytest

from tests.servers import S3Server
from tests.stack import free_port
from tidegate.errors import BlobMissing, BlobUnavailable, StartRefused
from tidegate.settings import Settings
from tidegate.storage.blobs import BlobStore, Layout, open_blobs

KEY = f"plugin_packages/acme/weather:0.0.1@{'a' * 64}"


@pytest.fixture
def bucket() -> str:
    return f"tidegate-{uuid.uuid4().hex}"


@pytest.fixture
def settings(s3: S3Server, bucket: str, tmp_path: Path) -> Settings:
    return Settings.load({"TIDEGATE_HOME": str(tmp_path), **s3.environ(bucket)})


@pytest.fixture
def blobs(settings: Settings) -> BlobStore:
    return open_blobs(settings)


def _client(settings: Settings) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        aws_access_key_id="access",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    )


def test_the_bucket_is_made_when_it_is_missing_and_taken_when_it_is_there(
    settings: Settings, blobs: BlobStore, bucket: str
) -> None:
    blobs.save(KEY, b"\0package")
    names = [one["Name"] for one in _client(settings).list_buckets()["Buckets"]]
    assert bucket in names
    assert open_blobs(settings).load(KEY) == b"\0package"


def test_what_was_saved_is_loaded_and_replaced(blobs: BlobStore) -> None:
    assert not blobs.exists(KEY)
    for data in (b"\0package", b"", b"x" * (6 << 20)):
        blobs.save(KEY, data)
        assert blobs.exists(KEY)
        assert blobs.load(KEY) == data


def test_keys_are_the_references_layout(settings: Settings, blobs: BlobStore, bucket: str) -> None:
    layout = Layout(settings)
    blobs.save(layout.installed(f"acme/weather:0.0.1@{'a' * 64}"), b"x")
    (entry,) = _client(settings).list_objects_v2(Bucket=bucket)["Contents"]
    assert entry["Key"] == f"plugin/acme/weather:0.0.1@{'a' * 64}"


def test_a_list_is_of_whole_path_segments_and_longer_than_a_page(
    settings: Settings, blobs: BlobStore, bucket: str
) -> None:
    blobs.save("plugin/b", b"12")
    blobs.save("plugin_packages/a", b"1")
    client = _client(settings)
    for number in range(11):
        client.put_object(Bucket=bucket, Key=f"plugin/many/{number:04}", Body=b"")
    found = blobs.list("plugin")
    assert len(found) == 12
    assert (found[0].key, found[0].size) == ("plugin/b", 2)
    assert found[0].modified.tzinfo is not None
    assert found == sorted(found, key=lambda blob: blob.key)
    assert blobs.list("nothing") == []


def test_delete_says_whether_there_was_one_and_takes_no_more(blobs: BlobStore) -> None:
    blobs.save("persistence/t/p/a", b"")
    blobs.save("persistence/t/p/a/b", b"")
    assert blobs.delete("persistence/t/p/a")
    assert not blobs.delete("persistence/t/p/a")
    assert blobs.exists("persistence/t/p/a/b")


@pytest.mark.parametrize("key", ["", "/a", "a/../b", "a//b", "a\\b", "a\nb"])
def test_a_malformed_key_is_a_mistake_of_the_caller(blobs: BlobStore, key: str) -> None:
    for use in (blobs.load, blobs.exists, blobs.list, blobs.delete):
        with pytest.raises(ValueError, match="blob key"):
            use(key)


def _uses(blobs: BlobStore) -> dict[str, Callable[[], Any]]:
    return {
        "save": lambda: blobs.save(KEY, b"x"),
        "load": lambda: blobs.load(KEY),
        "exists": lambda: blobs.exists(KEY),
        "list": lambda: blobs.list("plugin"),
        "delete": lambda: blobs.delete(KEY),
    }


def test_D_59_only_a_missing_object_is_missing(
    settings: Settings, blobs: BlobStore, bucket: str
) -> None:
    with pytest.raises(BlobMissing):
        blobs.load(KEY)
    client = _client(settings)
    client.delete_bucket(Bucket=bucket)
    for name, use in _uses(blobs).items():
        with pytest.raises(BlobUnavailable):
            pytest.fail(f"{name} answered {use()!r} although the bucket is gone")


@pytest.mark.parametrize("use", ["save", "load", "exists", "list", "delete"])
def test_D_59_a_store_that_is_not_there_is_unavailable(tmp_path: Path, use: str) -> None:
    environ = S3Server(f"http://127.0.0.1:{free_port()}").environ("bucket")
    blobs = open_blobs(Settings.load({"TIDEGATE_HOME": str(tmp_path), **environ}))
    with pytest.raises(BlobUnavailable, match="bucket"):
        _uses(blobs)[use]()


@contextmanager
def _answering(answer: Callable[[str, str], tuple[int, str]]) -> Iterator[S3Server]:
    """A store that answers (status, code) for each method and path."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, code = answer(self.command, self.path)
            body = f"<Error><Code>{code}</Code></Error>".encode() if code else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_DELETE = _any

        def log_message(self, *_: Any) -> None:
            """Nothing to say."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield S3Server(f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_full_store_is_named_as_such(tmp_path: Path) -> None:
    def answer(method: str, _path: str) -> tuple[int, str]:
        return (400, "QuotaExceeded") if method == "PUT" else (200, "")

    with _answering(answer) as server:
        environ = {"TIDEGATE_HOME": str(tmp_path), **server.environ("bucket")}
        blobs = open_blobs(Settings.load(environ))
        with pytest.raises(BlobUnavailable) as caught:
            blobs.save(KEY, b"x")
    assert caught.value.details["reason"] == "full"


def test_a_key_that_may_not_look_at_the_bucket_is_enough(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    def answer(method: str, path: str) -> tuple[int, str]:
        asked.append((method, path))
        return (403, "AccessDenied") if path == "/bucket" else (200, "")

    with _answering(answer) as server:
        environ = {"TIDEGATE_HOME": str(tmp_path), **server.environ("bucket")}
        blobs = open_blobs(Settings.load(environ))
        assert blobs.exists("assets/a.svg")
        assert blobs.exists("assets/a.svg")
    assert asked == [
        ("HEAD", "/bucket"),
        ("HEAD", "/bucket/assets/a.svg"),
        ("HEAD", "/bucket/assets/a.svg"),
    ], "path style, and the bucket is looked for once"


def test_virtual_hosts_when_path_style_is_switched_off(tmp_path: Path) -> None:
    environ = {**S3Server("http://store.invalid").environ("bucket"), "S3_USE_PATH_STYLE": "false"}
    settings = Settings.load({"TIDEGATE_HOME": str(tmp_path), **environ})
    with pytest.raises(BlobUnavailable, match=r"http://bucket\.store\.invalid/"):
        open_blobs(settings).exists("assets/a.svg")


def test_waiting_for_the_store_holds_nobody_else_up(blobs: BlobStore) -> None:
    blobs.save(KEY, b"x" * (1 << 20))
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            gevent.sleep(0.001)

    ticking = gevent.spawn(tick)
    loads = [gevent.spawn(blobs.load, KEY) for _ in range(24)]
    gevent.joinall(loads, raise_error=True)
    ticking.kill()
    assert {len(one.value) for one in loads} == {1 << 20}
    assert ticks > 5, "the loads waited in gevent, more of them than there are connections"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"PLUGIN_STORAGE_OSS_BUCKET": ""}, "PLUGIN_STORAGE_OSS_BUCKET"),
        ({"S3_ENDPOINT": ""}, "S3_ENDPOINT"),
        ({"S3_ENDPOINT": "", "S3_USE_AWS": "true", "AWS_REGION": ""}, "AWS_REGION"),
    ],
)
def test_settings_that_lead_nowhere_are_refused_at_start(
    tmp_path: Path, changed: dict[str, str], named: str
) -> None:
    environ = {**S3Server("http://127.0.0.1:1").environ("bucket"), **changed}
    with pytest.raises(StartRefused, match=named):
        open_blobs(Settings.load({"TIDEGATE_HOME": str(tmp_path), **environ}))


def test_credentials_of_the_machine_are_taken_when_none_are_given(
    s3: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {**s3.environ(bucket), "AWS_ACCESS_KEY": "", "AWS_SECRET_KEY": ""}
    blobs = open_blobs(Settings.load({"TIDEGATE_HOME": str(tmp_path), **environ}))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from the machine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    blobs.save(KEY, b"x")
    assert blobs.load(KEY) == b"x"


def test_nobody_else_pays_for_it(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from tidegate.settings import Settings\n"
        "from tidegate.storage.blobs import open_blobs\n"
        f"open_blobs(Settings.load({{'TIDEGATE_HOME': {str(tmp_path)!r}}}))\n"
        "sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
