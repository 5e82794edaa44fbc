"""What has to hold on each stack: the embedded default, PostgreSQL with Redis, blobs in S3."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path

import pytest
from redis import Redis

from tests import servers
from tests.hosting import working_path
from tests.servers import PostgresServer, RedisServer, S3Server
from tests.stack import (
    TENANT,
    Stack,
    either_stack,  # noqa: F401 - a fixture, by its name
    on_servers,
    running_stack,
    wait_until,
)
from tidegate.packages import build_package
from tidegate.settings import Settings
from tidegate.storage.blobs import open_blobs

pytestmark = [
    pytest.mark.limit(180, "starts all four roles; environments are built by uv"),
    pytest.mark.blocks_hub("starts processes, builds packages"),
]

HELLO = Path(__file__).parents[2] / "examples" / "hello"


def _package(version: str = "0.0.1") -> bytes:
    """The sample plugin as a package of its own; environments are shared."""
    manifest = (HELLO / "manifest.yaml").read_text("utf-8").replace("0.0.1", version)
    extra = {"manifest.yaml": manifest.encode(), "mark.txt": uuid.uuid4().hex.encode()}
    return build_package(HELLO, extra=extra)


def _greets(stack: Stack) -> bool:
    answer = stack.tool("tidegate/hello", "greet", {"name": "you"})
    assert answer.error is None, answer.error
    return "you" in "".join(answer.texts)


def _rows(stack: Stack) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = stack.data("GET", "list?page=1&page_size=100")["list"]
    return rows


def _uninstall(stack: Stack) -> None:
    for row in _rows(stack):
        stack.data("POST", "uninstall", {"plugin_installation_id": row["id"]})
    assert _rows(stack) == []


def test_a_plugin_is_installed_upgraded_under_calls_and_removed(
    either_stack: Stack,  # noqa: F811
) -> None:
    stack = either_stack
    stack.install(_package("0.0.1"))
    old = _rows(stack)[0]["plugin_unique_identifier"]
    new = stack.upload(_package("0.0.2"))
    stop, wrong = threading.Event(), []

    def keep_calling() -> None:
        while not stop.is_set():
            try:
                assert _greets(stack)
            except AssertionError as error:
                wrong.append(str(error))

    calling = threading.Thread(target=keep_calling)
    calling.start()
    try:
        asked = {
            "original_plugin_unique_identifier": old,
            "new_plugin_unique_identifier": new,
            "source": "package",
            "meta": {},
        }
        answer = stack.data("POST", "install/upgrade", asked)
        assert stack.wait_task(answer["task_id"])["status"] == "success"
        [row] = _rows(stack)
        assert row["plugin_unique_identifier"] == new, "at once, on the process that answers"
    finally:
        stop.set()
        calling.join()
    assert wrong == []
    _uninstall(stack)
    answer = stack.tool("tidegate/hello", "greet", {"name": "you"})
    assert answer.status == 404


def test_T29_local_calls_go_on_while_redis_is_away(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with (
        servers.redis_server() as redis,
        on_servers(postgres, redis) as variables,
        running_stack(tmp_path / "tidegate", **variables) as stack,
    ):
        stack.install(_package())
        assert _greets(stack)
        with Redis(redis.host, redis.port) as client:
            client.shutdown(nosave=True)
        assert all(_greets(stack) for _ in range(5))
        assert len(_rows(stack)) == 1
        status, _ = stack.ask("GET", "/health/check")
        assert status == 200


def test_T30_a_restart_on_an_empty_disk_brings_everything_back_from_s3(
    postgres: PostgresServer, redis: RedisServer, s3: S3Server, tmp_path: Path
) -> None:
    bucket = f"tidegate-{uuid.uuid4().hex}"
    with on_servers(postgres, redis) as variables:
        variables |= {
            **s3.environ(bucket),
            "SERVER_KEY": uuid.uuid4().hex,
            "UV_CACHE_DIR": str(working_path() / ".uv-cache"),
        }
        with running_stack(tmp_path / "first", **variables) as stack:
            stack.install(_package())
            assert _greets(stack)
            [row] = _rows(stack)
        blobs = open_blobs(Settings.load({"TIDEGATE_HOME": str(tmp_path), **variables}))
        identifier = row["plugin_unique_identifier"]
        assert blobs.exists(f"plugin/{identifier}")
        assert list((tmp_path / "first").glob("plugin*/**")) == []
        empty = {**variables, "PLUGIN_WORKING_PATH": str(tmp_path / "cwd")}
        with running_stack(tmp_path / "second", **empty) as stack:
            wait_until(lambda: list((tmp_path / "cwd").glob(".environments/*.users/*")))
            assert _greets(stack)
            status, icon = stack.ask("GET", f"/plugin/{TENANT}/asset/{row['declaration']['icon']}")
            assert status == 200
            assert icon
            _uninstall(stack)
            wait_until(lambda: not blobs.exists(f"plugin/{identifier}"))
            assert blobs.exists(f"plugin_packages/{identifier}"), "the upload stays"
