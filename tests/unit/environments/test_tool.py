"""Tools are bounded in silence and in time, see an allow-list, and their words are kept."""

import time

import pytest

from tests.patience import patience
from tidegate.environments.tool import Tools
from tidegate.errors import EnvironmentFailed
from tidegate.settings import Settings


def tools(tmp_path, environ=None, **variables):
    given = {"TIDEGATE_HOME": str(tmp_path), **{k.upper(): v for k, v in variables.items()}}
    return Tools(Settings.load(given), {"PATH": "/usr/bin:/bin", **(environ or {})})


def run(tmp_path, script, **limits):
    lines = []
    said = tools(tmp_path).run(
        ["/bin/sh", "-c", script], folder=tmp_path, on_line=lines.append, **limits
    )
    return said, lines


def test_lines_for_people_are_reported_and_debug_lines_are_not(tmp_path):
    said, lines = run(tmp_path, "echo one; echo 'DEBUG two' >&2; echo; echo three")
    assert lines == ["one", "three"]
    assert "DEBUG two" in said


def test_a_failure_carries_the_tools_own_words(tmp_path):
    with pytest.raises(EnvironmentFailed) as caught:
        run(tmp_path, "echo DEBUG noise; echo 'error: no such package'; exit 2")
    assert caught.value.message == "sh -c: exit code 2: error: no such package"


def test_debug_lines_are_shown_when_there_is_nothing_else(tmp_path):
    with pytest.raises(EnvironmentFailed, match="DEBUG only this"):
        run(tmp_path, "echo DEBUG only this; exit 1")


def test_a_tool_that_says_nothing_is_stopped(tmp_path):
    begun = time.monotonic()
    with pytest.raises(EnvironmentFailed, match=r"no activity for 0\.3 seconds: begun"):
        run(tmp_path, "echo begun; sleep 60", silence=0.3)
    assert time.monotonic() - begun < patience(5)


def test_a_tool_that_talks_on_is_stopped_in_the_end(tmp_path):
    with pytest.raises(EnvironmentFailed, match=r"longer than 0\.5 seconds"):
        run(tmp_path, "while true; do echo x; sleep 0.05; done", silence=5, total=0.5)


def test_a_tool_that_cannot_be_started_is_named(tmp_path):
    with pytest.raises(EnvironmentFailed, match="cannot start /nowhere/tool"):
        tools(tmp_path).run(["/nowhere/tool"], folder=tmp_path, on_line=print)


def test_a_tool_that_talks_without_end_costs_bounded_memory(tmp_path):
    said, _ = run(tmp_path, "head -c 2000000 /dev/zero | tr '\\0' x; echo; echo end")
    assert len(said) <= 64 << 10
    assert said.endswith("end\n")


def test_builds_see_no_secrets(tmp_path):
    found = tools(
        tmp_path,
        {"SERVER_KEY": "s", "DB_PASSWORD": "s", "HOME": "/root", "SSL_CERT_FILE": "/ca.pem",
         "UV_INDEX_NEXUS_USERNAME": "u", "UV_INDEX_NEXUS_PASSWORD": "p", "no_proxy": "x"},
        https_proxy="http://p:1",
    ).environment()  # fmt: skip
    assert found == {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "SSL_CERT_FILE": "/ca.pem",
        "UV_INDEX_NEXUS_USERNAME": "u",
        "UV_INDEX_NEXUS_PASSWORD": "p",
        "HTTPS_PROXY": "http://p:1",
        "https_proxy": "http://p:1",
        "NO_PROXY": "x",
        "no_proxy": "x",
        "UV_CACHE_DIR": str(tmp_path / "cwd/.uv-cache"),
        "UV_PYTHON_INSTALL_DIR": str(tmp_path / "cwd/.python"),
    }


def test_an_operator_may_share_the_cache_and_name_an_index(tmp_path):
    found = tools(tmp_path, {"UV_CACHE_DIR": "/shared", "PIP_INDEX_URL": "https://i"}).environment()
    assert found["UV_CACHE_DIR"] == "/shared"
    assert found["UV_DEFAULT_INDEX"] == "https://i"
    given = {"UV_DEFAULT_INDEX": "https://uv", "PIP_INDEX_URL": "https://pip"}
    assert tools(tmp_path, given).environment()["UV_DEFAULT_INDEX"] == "https://uv"


def test_a_tool_that_prints_ten_thousand_lines_at_once_has_its_last_ones_told(tmp_path):
    """Each line that is told goes over the link: a hostile build stopped the host with them."""
    _, lines = run(tmp_path, "seq 10000 > all; cat all")
    assert lines[-1] == "10000"
    assert len(lines) < 1000
