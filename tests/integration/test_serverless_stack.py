"""PLATFORM=serverless through the real api, worker and host: installed, called, removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hosting import host_settings
from tests.patience import wait_until
from tests.stack import running_stack
from tidegate.packages import build_package
from tidegate.testing.connector import running_connector

pytestmark = [
    pytest.mark.limit(240, "starts all four roles and a function with the real SDK"),
    pytest.mark.blocks_hub("starts processes, builds packages"),
]

HELLO = Path(__file__).parents[2] / "examples" / "hello"
PLUGIN = "tidegate/hello"


def test_a_plugin_is_installed_as_a_function_called_and_removed(tmp_path):
    with running_connector(host_settings(tmp_path), key="connect") as served:
        variables = {
            "PLATFORM": "serverless",
            "DIFY_PLUGIN_SERVERLESS_CONNECTOR_URL": served.url,
            "DIFY_PLUGIN_SERVERLESS_CONNECTOR_API_KEY": "connect",
        }
        with running_stack(tmp_path / "tidegate", **variables) as stack:
            assert stack.install(build_package(HELLO)) == PLUGIN
            (row,) = stack.data("GET", "list?page=1&page_size=10")["list"]
            assert row["runtime_type"] == "serverless"
            answer = stack.tool(PLUGIN, "greet", {"name": "you"})
            assert answer.texts[0] == "Hello, "
            assert stack.data("POST", "uninstall", {"plugin_installation_id": row["id"]}) is True
            wait_until(lambda: stack.tool(PLUGIN, "greet", {"name": "you"}).status == 404)


def test_without_its_connector_the_host_does_not_start_and_one_line_says_why(tmp_path):
    done = subprocess.run(
        [str(Path(sys.executable).with_name("tidegate")), "host"],
        env={
            "PATH": os.environ["PATH"],
            "TIDEGATE_HOME": str(tmp_path),
            "PLATFORM": "serverless",
            "PLUGIN_REMOTE_INSTALLING_ENABLED": "false",
            "DIFY_PLUGIN_SERVERLESS_CONNECTOR_URL": "http://127.0.0.1:9",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 78
    assert "the connector does not answer" in done.stderr.strip().splitlines()[-1]
