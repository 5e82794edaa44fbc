"""What a caller of the installer is answered, and what is there afterwards."""

from __future__ import annotations

import re
from datetime import timedelta

import gevent
import msgspec
import pytest

from tests.patience import wait_until
from tests.unit.installs.conftest import HELLO, OTHER, TENANT, House, identifier, package
from tidegate.errors import (
    BadRequest,
    BlobUnavailable,
    InvalidIdentifier,
    NotFound,
    PackageRejected,
    PackageUnknown,
)
from tidegate.installs import Installer, runner
from tidegate.packages import build_package, generate_key, open_package, sign
from tidegate.settings import Settings
from tidegate.storage import declarations, install_tasks, migrate

pytestmark = pytest.mark.blocks_hub("packages are built and migrations run in the test's process")


# --------------------------------------------------------------------------- upload


def test_an_upload_is_kept_and_declared_with_asset_ids(house: House) -> None:
    uploaded = house.installer.upload(TENANT, package(), False)
    assert str(uploaded.identifier) == identifier()
    assert uploaded.verification is None
    assert house.shelf.package(identifier()) == package()
    assert not house.shelf.is_marked_installed(identifier())
    icon = uploaded.declaration["icon"]
    assert house.blobs.exists(f"assets/{icon}")
    with house.database.read() as conn:
        row = declarations.get(conn, identifier())
    assert row is not None
    assert msgspec.json.decode(row.text) == uploaded.declaration


def test_an_unsigned_package_is_refused_when_signatures_are_asked_for(house: House) -> None:
    with pytest.raises(PackageRejected, match="bad signature"):
        house.installer.upload(TENANT, package(), True)
    assert not house.shelf.has_package(identifier())


def test_signatures_are_asked_for_by_default(tmp_path) -> None:
    settings = Settings.load({"TIDEGATE_HOME": str(tmp_path)})
    migrate(settings)
    house = House(settings)
    with pytest.raises(PackageRejected, match="FORCE_VERIFYING_SIGNATURE"):
        house.installer.upload(TENANT, package(), False)
    house.close()


@pytest.fixture(scope="module")
def keys() -> tuple[bytes, bytes]:
    """A (private, public) pair of somebody whom the operator trusts."""
    return generate_key(bits=2048)


def trust(house: House, public: bytes) -> None:
    trusted = house.settings.home.keys / "trusted"
    trusted.mkdir(parents=True)
    (trusted / "mine.pem").write_bytes(public)
    (trusted / "broken.pem").write_bytes(b"no key")


def signed(data: bytes, private: bytes) -> bytes:
    return sign(open_package(data, limit=1 << 26), private, "community")


def test_a_package_signed_with_a_trusted_key_is_verified(
    house: House, keys: tuple[bytes, bytes]
) -> None:
    data = signed(package(), keys[0])
    with pytest.raises(PackageRejected, match="bad signature"):
        house.installer.upload(TENANT, data, True)
    trust(house, keys[1])
    uploaded = house.installer.upload(TENANT, data, True)
    assert uploaded.verification is not None
    assert uploaded.verification.authorized_category == "community"
    assert uploaded.declaration["verified"]


def test_a_key_that_cannot_be_used_is_logged_once_and_again_after_it_was_mended(
    house: House, keys: tuple[bytes, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    def lines() -> int:
        house.installer.upload(TENANT, package(), False)
        return caplog.text.count("trusted key not usable")

    trust(house, keys[1])
    broken = house.settings.home.keys / "trusted" / "broken.pem"
    assert [lines(), lines()] == [1, 1]
    said = [one.fields for one in caplog.records if "trusted key" in one.message]  # type: ignore[attr-defined]
    assert "broken.pem: is no public key" in said[0]["key"]
    broken.write_bytes(keys[1])
    assert lines() == 1
    broken.write_bytes(b"no key")
    assert lines() == 2


def test_D_30_a_reserved_author_needs_the_official_signature(
    house: House, keys: tuple[bytes, bytes]
) -> None:
    trust(house, keys[1])
    manifest = (HELLO / "manifest.yaml").read_text("utf-8")
    claimed = manifest.replace("author: tidegate", "author: langgenius").encode()
    data = signed(build_package(HELLO, extra={"manifest.yaml": claimed}), keys[0])
    with pytest.raises(PackageRejected, match="langgenius is reserved"):
        house.installer.upload(TENANT, data, True)


def test_a_package_that_is_none_says_so(house: House) -> None:
    with pytest.raises(PackageRejected, match="difypkg"):
        house.installer.upload(TENANT, b"PK nothing", False)


def test_a_failed_upload_leaves_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bool:
        raise BlobUnavailable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(declarations, "put_if_absent", full)
        with pytest.raises(BlobUnavailable):
            house.installer.upload(TENANT, package(), False)
    assert house.blobs.list("plugin_packages") == []
    assert house.blobs.list("assets") == []


def test_a_failed_second_upload_keeps_the_first(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.upload()

    def full(*_: object) -> bool:
        raise BlobUnavailable("the disk is full")

    monkeypatch.setattr(declarations, "put_if_absent", full)
    with pytest.raises(BlobUnavailable):
        house.upload()
    assert house.shelf.has_package(identifier())
    assert len(house.blobs.list("assets")) == 1


# --------------------------------------------------------------------------- install


def test_an_installation_goes_through_a_task_to_a_row(house: House) -> None:
    name = house.upload()
    with house.host.held("install:environment"):
        answer = house.install(name)
        assert not answer.all_installed
        assert house.task(answer).status == "running"
        assert house.entry(answer).status in {"pending", "running"}
        assert house.entry(answer).labels["en_US"] == "Hello"
        wait_until(lambda: house.entry(answer).message == "installing dependencies")
        assert house.row() is None
    house.sender.join()
    task = house.task(answer)
    assert (task.status, task.completed_plugins) == ("success", 1)
    assert house.entry(answer).message == "installed"
    row = house.row()
    assert row is not None
    assert (row.identifier, row.source, row.meta) == (name, "package", {})
    assert house.shelf.is_marked_installed(name)
    assert house.host.calls[-1][0] == "changed"


def test_what_is_installed_needs_no_task(house: House) -> None:
    name = house.installed()
    answer = house.install(name)
    assert (answer.all_installed, answer.task_id) == (True, "")
    assert house.installer.install(TENANT, [], "package", []).all_installed


def test_another_version_of_an_installed_plugin_counts_as_installed(house: House) -> None:
    house.installed()
    other = house.upload("0.0.2")
    assert house.install(other).all_installed


def test_a_version_never_uploaded_is_refused_with_the_known_text(house: House) -> None:
    with pytest.raises(
        PackageUnknown, match=re.escape("plugin not found\nfailed to get plugin declaration")
    ):
        house.install(identifier())


def test_a_package_that_outlived_its_declaration_installs_again(house: House) -> None:
    name = house.installed()
    row = house.row()
    assert row is not None
    house.installer.uninstall(TENANT, row.id)
    house.sender.join()
    with house.database.read() as conn:
        assert declarations.get(conn, name) is None
    answer = house.install(name)
    house.sender.join()
    assert house.task(answer).status == "success"


def test_malformed_requests_are_refused(house: House) -> None:
    with pytest.raises(InvalidIdentifier):
        house.install("no identifier")
    with pytest.raises(BadRequest, match="metas"):
        house.installer.install(TENANT, [identifier()], "package", [])


def test_a_mixed_request_counts_what_is_installed_already(house: House) -> None:
    first = house.installed()
    parrot = house.upload("0.0.1")
    assert parrot == first
    answer = house.installer.install(TENANT, [first, first], "package", [{}, {}])
    assert answer.all_installed


def test_a_hundred_clicks_are_one_task_one_job_and_one_build(house: House) -> None:
    name = house.upload()
    with house.host.held("install"):
        answers = [house.install(name) for _ in range(100)]
        assert len({answer.task_id for answer in answers}) == 1
        assert len(house.open_jobs()) == 1
    house.sender.join()
    assert house.host.count("install") == 1
    assert house.task(answers[0]).status == "success"


def test_T10_a_hundred_clicks_at_once_are_one_task_and_one_job(house: House) -> None:
    """Each is a transaction of its own that looks for a task before another one has made it."""
    name = house.upload()
    with house.host.held("install"):
        clicks = [gevent.spawn(house.install, name) for _ in range(100)]
        gevent.joinall(clicks, raise_error=True)
        assert len({click.value.task_id for click in clicks}) == 1
        assert len(house.open_jobs()) == 1
    house.sender.join()
    assert house.task(clicks[0].value).status == "success"


def test_a_broker_that_is_away_delays_the_job_only(house: House) -> None:
    name = house.upload()
    house.sender.broken = True
    answer = house.install(name)
    house.sender.broken = False
    house.settle()
    assert house.task(answer).status == "success"


# --------------------------------------------------------------------------- uninstall, upgrade


def test_D_16_an_uninstall_answers_before_the_plugin_is_stopped(house: House) -> None:
    name = house.installed()
    row = house.row()
    assert row is not None
    with house.host.held("stop"):
        house.installer.uninstall(TENANT, row.id)
        assert house.row() is None
        assert house.host.count("remove") == 0
    house.sender.join()
    assert [op for op, _ in house.host.calls[-2:]] == ["stop", "remove"]
    assert not house.shelf.is_marked_installed(name)
    assert house.shelf.has_package(name)
    assert house.open_jobs() == []


def test_a_version_that_somebody_else_uses_is_not_stopped(house: House) -> None:
    name = house.installed()
    assert not house.install(name, OTHER).all_installed
    house.sender.join()
    row = house.row()
    assert row is not None
    house.installer.uninstall(TENANT, row.id)
    house.sender.join()
    assert house.host.count("stop") == 0
    assert house.row(OTHER) is not None
    assert house.shelf.is_marked_installed(name)


def test_uninstalling_what_is_not_there_is_nothing(house: House) -> None:
    house.installer.uninstall(TENANT, "0198c5d2-0000-7000-8000-00000000dead")
    house.installer.uninstall(TENANT, "no id at all")
    house.installed()
    row = house.row()
    assert row is not None
    house.installer.uninstall(OTHER, row.id)
    assert house.row() is not None


def test_an_upgrade_builds_beside_and_then_switches(house: House) -> None:
    old = house.installed()
    new = house.upload("0.0.2")
    with house.host.held("install"):
        answer = house.installer.upgrade(TENANT, old, new, "package", {"why": "newer"})
        assert not answer.all_installed
        house.until_held("install")
        before = house.row()
        assert before is not None
        assert before.identifier == old
        assert house.host.count("stop") == 0
    house.sender.join()
    after = house.row()
    assert after is not None
    assert (after.id, after.identifier, after.meta) == (before.id, new, {"why": "newer"})
    assert house.entry(answer).message == "upgraded"
    assert ("stop", {"identifier": old}) in house.host.calls
    assert not house.shelf.is_marked_installed(old)
    assert house.shelf.is_marked_installed(new)


def test_an_upgrade_to_what_somebody_uses_is_done_at_once(house: House) -> None:
    old = house.installed()
    new = house.installed("0.0.2", OTHER)
    answer = house.installer.upgrade(TENANT, old, new, "package")
    assert (answer.all_installed, answer.task_id) == (True, "")
    row = house.row()
    assert row is not None
    assert (row.identifier, row.meta) == (new, {})
    house.sender.join()
    assert ("stop", {"identifier": old}) in house.host.calls


def test_an_upgrade_refuses_what_does_not_fit(house: House) -> None:
    old = house.installed()
    new = identifier("0.0.2")
    with pytest.raises(NotFound, match="plugin not found"):
        house.installer.upgrade(TENANT, old, new, "package")
    house.upload("0.0.2")
    with pytest.raises(NotFound, match="not installed"):
        house.installer.upgrade(OTHER, old, new, "package")
    with pytest.raises(BadRequest, match="the same"):
        house.installer.upgrade(TENANT, old, old, "package")
    with pytest.raises(BadRequest, match="not the same plugin"):
        house.installer.upgrade(TENANT, old, "acme/other:1.0.0@" + "0" * 64, "package")


def test_an_upgrade_whose_original_was_removed_meanwhile_fails_and_cleans_up(
    house: House,
) -> None:
    old = house.installed()
    new = house.upload("0.0.2")
    with house.host.held("install"):
        answer = house.installer.upgrade(TENANT, old, new, "package")
        house.until_held("install")
        row = house.row()
        assert row is not None
        house.installer.uninstall(TENANT, row.id)
    house.settle()
    assert house.row() is None
    assert "removed meanwhile" in house.entry(answer).message
    assert not house.shelf.is_marked_installed(new)


def test_two_upgrades_at_once_both_succeed(house: House) -> None:
    old = house.installed()
    new = house.upload("0.0.2")
    with house.host.held("install"):
        answers = [house.installer.upgrade(TENANT, old, new, "package") for _ in range(2)]
        house.until_jobs(new, 2)
    house.settle()
    assert [house.task(answer).status for answer in answers] == ["success", "success"]
    assert house.host.count("install") == 2


def test_two_versions_in_one_request_are_one_installation(house: House) -> None:
    names = [house.upload(), house.upload("0.0.2")]
    answer = house.installer.install(TENANT, names, "package", [{}, {}])
    house.settle()
    assert house.task(answer).status == "success"
    row = house.row()
    assert row is not None
    assert row.identifier in names


# --------------------------------------------------------------------------- tasks


def test_D_15_a_task_stays_until_two_minutes_after_its_last_plugin(house: House) -> None:
    name = house.upload()
    answer = house.install(name)
    house.sender.join()
    house.worker.clean()
    assert house.task(answer).status == "success"


def test_an_entry_that_nothing_works_on_is_failed_with_words(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = install_tasks.TaskEntry(identifier=identifier(), source="package")
    with house.database.write() as conn:
        task = install_tasks.create(conn, TENANT, [entry])
    monkeypatch.setattr(runner, "LOST_AFTER", timedelta(seconds=-1))
    house.worker.clean()
    with house.database.read() as conn:
        found = install_tasks.get(conn, TENANT, task.id)
    assert found is not None
    assert found.status == "failed"
    assert "install it again" in found.plugins[0].message


def test_an_entry_whose_job_ended_while_the_task_was_looked_at_stays_as_it_ended(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = install_tasks.TaskEntry(identifier=identifier(), source="package")
    with house.database.write() as conn:
        seen = install_tasks.create(conn, TENANT, [entry])
        done = install_tasks.set_entry(conn, seen.id, identifier(), status="success")
    assert done is not None
    monkeypatch.setattr(runner, "LOST_AFTER", timedelta(seconds=-1))
    monkeypatch.setattr(install_tasks, "unfinished", lambda conn, limit: [seen])
    house.worker.clean()
    with house.database.read() as conn:
        found = install_tasks.get(conn, TENANT, seen.id)
    assert found is not None
    assert found.status == "success"


def test_installer_tells_its_catalogue_before_it_answers(house: House) -> None:
    name = house.installed()
    known = house.catalogue.installation(TENANT, "tidegate/hello")
    assert known is not None
    assert known.identifier == name
    installer: Installer = house.installer
    installer.uninstall(TENANT, known.row.id)
    assert house.catalogue.installation(TENANT, "tidegate/hello") is None
