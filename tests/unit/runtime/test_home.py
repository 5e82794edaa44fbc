"""The data folder: where, its keys and locks, and what is refused with one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tidegate.errors import StartRefused
from tidegate.runtime.home import (
    SOCKET_PATH_LIMIT,
    default_home,
    link_key,
    link_socket,
    prepare_home,
    take_lock,
    write_whole,
)


def environ(home: Path, **more: str) -> dict[str, str]:
    return {"TIDEGATE_HOME": str(home), **more}


def test_folders_are_private_and_the_key_is_made_once(tmp_path):
    first = prepare_home(environ(tmp_path / "home"))
    second = prepare_home(environ(tmp_path / "home"))
    assert first.server_key.reveal() == second.server_key.reveal()
    assert len(first.server_key.reveal()) > 40
    for folder in (first.home.root, first.home.run, first.home.logs, first.home.keys):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert (first.home.keys / "server.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in first.home.keys.iterdir()] == ["server.key"]


def test_a_key_that_is_given_is_not_written(tmp_path):
    settings = prepare_home(environ(tmp_path / "home", SERVER_KEY="given"))
    assert settings.server_key.reveal() == "given"
    assert not list(settings.home.keys.iterdir())


def test_an_empty_key_file_is_refused(tmp_path):
    home = prepare_home(environ(tmp_path / "home")).home
    (home.keys / "server.key").write_text("\n")
    with pytest.raises(StartRefused, match="is empty: remove it"):
        prepare_home(environ(tmp_path / "home"))


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StartRefused, match=r"cannot be written .*set TIDEGATE_HOME") as error:
        prepare_home(environ(tmp_path / "file" / "home"))
    assert "\n" not in error.value.message


def test_a_place_that_is_taken_by_a_file_is_one_line(tmp_path):
    home = prepare_home(environ(tmp_path / "home")).home
    home.logs.rmdir()
    home.logs.write_text("")
    with pytest.raises(StartRefused, match=r"cannot be written \(File exists\)"):
        prepare_home(environ(tmp_path / "home"))


def test_the_default_is_in_the_checkout():
    checkout = Path(__file__).resolve().parents[3]
    assert default_home({}) == checkout / ".tidegate"


def test_the_link_key_depends_on_the_server_key_only(tmp_path):
    one = prepare_home(environ(tmp_path / "a", SERVER_KEY="x"))
    two = prepare_home(environ(tmp_path / "b", SERVER_KEY="x"))
    other = prepare_home(environ(tmp_path / "b", SERVER_KEY="y"))
    assert link_key(one) == link_key(two) != link_key(other)
    assert len(link_key(one)) == 32
    assert link_key(one) != b"x"


def test_the_link_stands_in_the_data_folder_while_its_path_is_short(tmp_path):
    folder = tmp_path / "h"
    settings = prepare_home(environ(folder))
    expected = folder / "run/host.sock"
    assert len(os.fsencode(expected)) <= SOCKET_PATH_LIMIT
    assert link_socket(settings) == expected


def test_a_long_path_moves_the_link_to_a_private_folder(tmp_path):
    settings = prepare_home(environ(tmp_path / ("long" * 30)))
    path = link_socket(settings)
    try:
        assert len(os.fsencode(path)) <= SOCKET_PATH_LIMIT
        assert link_socket(settings) == path
        assert path.parent.stat().st_mode & 0o777 == 0o700
        path.parent.chmod(0o755)
        with pytest.raises(StartRefused, match="is not a private folder of this user"):
            link_socket(settings)
    finally:
        path.parent.rmdir()


def test_a_lock_is_held_by_one_and_names_the_owner(tmp_path):
    home = prepare_home(environ(tmp_path / "home")).home
    lock = take_lock(home, "up", "it runs already")
    with pytest.raises(StartRefused, match=rf"it runs already \(pid {os.getpid()}"):
        take_lock(home, "up", "it runs already")
    lock.close()
    take_lock(home, "up", "it runs already").close()


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "state.json"
    write_whole(path, b"one")
    write_whole(path, b"two", mode=0o640)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in tmp_path.iterdir()] == ["state.json"]


def test_a_file_that_cannot_be_put_in_place_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(tmp_path / "folder", b"x")
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("name", ["SERVER_KEY", "DIFY_INNER_API_KEY"])
def test_a_published_key_is_refused_unless_allowed(tmp_path, monkeypatch, capsys, name):
    from hashlib import sha256

    from tidegate.runtime import home

    monkeypatch.setitem(home._PUBLISHED, name, sha256(b"published").hexdigest())
    given = environ(tmp_path / "home", **{name: "published"})
    with pytest.raises(StartRefused, match=f"{name} is the one that Dify's sample files publish"):
        prepare_home(given)
    assert not (tmp_path / "home").exists()
    prepare_home({**given, "TIDEGATE_ALLOW_PUBLISHED_KEYS": "true"})
    assert capsys.readouterr().err == f"tidegate: warning: {name} is a published key\n"
