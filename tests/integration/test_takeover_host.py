"""The control call that builds without starting, and who else wants the same at that moment."""

from __future__ import annotations

import shutil
from pathlib import Path

import gevent
import pytest

from tests.hosting import PLUGINS, Running, package_of, running_host
from tidegate.ids import PluginIdentifier

pytestmark = [
    pytest.mark.limit(120, "environments are built by uv"),
    pytest.mark.blocks_hub("builds packages"),
]


@pytest.fixture
def host(tmp_path: Path):
    """A host with one package on its shelf."""
    with running_host(tmp_path) as running:
        data = package_of(PLUGINS / "misbehave", tmp_path, name=f"misbehave-{tmp_path.name[-9:]}")
        running.identifier = running.shelf.add(data)
        yield running


def _folder(host: Running) -> Path:
    return host.settings.working_path / PluginIdentifier.parse(host.identifier).folder


def test_prepare_builds_and_starts_nothing(host: Running) -> None:
    answer = host.control("prepare", identifier=host.identifier)
    assert answer.error is None, answer.error
    assert answer.chunks[-1] == {"built": True}
    assert (_folder(host) / "manifest.yaml").is_file()
    assert host.host.supervisors == []
    loads = host.shelf.loads
    assert host.control("prepare", identifier=host.identifier).chunks == [{"built": False}]
    assert host.shelf.loads == loads


def test_a_host_that_was_started_again_sees_what_is_built(host: Running, tmp_path: Path) -> None:
    host.control("prepare", identifier=host.identifier)
    with running_host(tmp_path) as again:
        again.shelf.blobs.update(host.shelf.blobs)
        answer = again.control("prepare", identifier=host.identifier)
        assert answer.chunks == [{"built": False}]
        assert again.shelf.loads == 0


def test_a_lost_folder_is_built_again(host: Running) -> None:
    host.control("prepare", identifier=host.identifier)
    shutil.rmtree(_folder(host))
    assert host.control("prepare", identifier=host.identifier).chunks[-1] == {"built": True}


def test_a_call_and_a_background_build_are_one_build(host: Running) -> None:
    preparing = [
        gevent.spawn(host.control, "prepare", identifier=host.identifier) for _ in range(3)
    ]
    answer = host.call(host.identifier, "echo", text="here").wait()
    assert answer.error is None, answer.error
    assert answer.texts == ["here"]
    assert [one.get().error for one in preparing] == [None] * 3
    assert host.shelf.loads == 1


def test_one_that_cannot_be_built_is_said_to_be(host: Running) -> None:
    answer = host.control("prepare", identifier=f"acme/gone:0.0.1@{'a' * 64}")
    assert answer.error_type == "PluginStartFailed"
