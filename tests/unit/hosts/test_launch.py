"""What a plugin is given, and what is taken out of what it says."""

from pathlib import Path

import pytest

from tidegate.errors import IllegalTransition
from tidegate.hosts.instance import State, check_transition
from tidegate.hosts.launch import Box, Places, Prepared, plugin_environment, prefixes_of
from tidegate.settings import Settings


def prepared(**changes):
    values = {
        "identifier": "acme/x:0.0.1@" + "0" * 64,
        "plugin_id": "acme/x",
        "folder": Path("/data/cwd/acme/x-0.0.1@00"),
        "environment": Path("/data/cwd/.environments/k"),
        "python": Path("/data/cwd/.environments/k/bin/python"),
        "entrypoint": "main",
        "prefixes": prefixes_of("/data/cwd/acme/x-0.0.1@00", "/data/cwd/.environments/k", "/"),
    }
    return Prepared(**{**values, **changes})


def environment_of(environ, **variables):
    settings = Settings.load({name.upper(): value for name, value in variables.items()})
    places = Places(Path("/data/home"), Path("/data/tmp-1"))
    return plugin_environment(prepared(), settings, environ, Box(1), places)


def test_T_S13_only_the_allow_list_passes():
    found = environment_of(
        {"SERVER_KEY": "s", "DB_PASSWORD": "s", "LANG": "de_DE.UTF-8", "TZ": "Europe/Berlin",
         "PYTHONPATH": "/evil", "LD_PRELOAD": "/evil.so", "SSL_CERT_FILE": "/ca.pem"}
    )  # fmt: skip
    assert found == {
        "LANG": "de_DE.UTF-8",
        "TZ": "Europe/Berlin",
        "SSL_CERT_FILE": "/ca.pem",
        "PATH": "/data/cwd/.environments/k/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": "/data/home",
        "TMPDIR": "/data/tmp-1",
        "VIRTUAL_ENV": "/data/cwd/.environments/k",
        "INSTALL_METHOD": "local",
        "PYTHONUNBUFFERED": "1",
    }


def test_proxies_pass_in_capitals_and_in_small_letters():
    found = environment_of({"https_proxy": "http://p:1"}, http_proxy="http://q:2")
    assert found["HTTPS_PROXY"] == found["https_proxy"] == "http://p:1"
    assert found["HTTP_PROXY"] == found["http_proxy"] == "http://q:2"


def test_an_operator_may_name_more_variables():
    found = environment_of({"A": "1", "B": "2", "C": "3"}, tidegate_plugin_env="A, C")
    assert (found.get("A"), found.get("B"), found.get("C")) == ("1", None, "3")


def test_our_paths_are_taken_out_of_a_traceback():
    text = (
        b'File "/data/cwd/acme/x-0.0.1@00/tools/a.py", line 3\n'
        b'File "/data/cwd/.environments/k/lib/python3.12/site-packages/dify_plugin/b.py"'
    )
    assert prepared().scrub(text) == (
        b'File "tools/a.py", line 3\nFile "lib/python3.12/site-packages/dify_plugin/b.py"'
    )


def test_an_empty_prefix_takes_nothing_out():
    assert prefixes_of("/", "") == ()


def test_folders_of_the_system_stay_in_what_a_plugin_says():
    assert prefixes_of("/usr", "/usr/local") == ()


@pytest.mark.parametrize("final", [State.GONE, State.FAILED])
def test_nothing_follows_a_final_state(final):
    for state in State:
        with pytest.raises(IllegalTransition):
            check_transition(final, state)


def test_an_instance_cannot_become_ready_twice():
    check_transition(State.STARTING, State.READY)
    with pytest.raises(IllegalTransition, match="cannot become ready when it is ready"):
        check_transition(State.READY, State.READY)
