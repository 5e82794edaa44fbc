"""``tidegate trust``: keys that count from the next upload on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run
from tidegate.errors import PackageRejected
from tidegate.installs.shelf import Shelf
from tidegate.installs.uploads import Uploads
from tidegate.packages import build_package, generate_key, open_package, sign
from tidegate.settings import Settings
from tidegate.storage import Database, migrate
from tidegate.storage.blobs import open_blobs

EXAMPLE = Path(__file__).parents[3] / "examples" / "hello"


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, bytes]:
    return generate_key(bits=2048)


@pytest.fixture
def public(tmp_path: Path, pair: tuple[bytes, bytes]) -> Path:
    path = tmp_path / "acme.public.pem"
    path.write_bytes(pair[1].replace(b"\n", b"\r\n"))
    return path


def test_a_key_is_added_shown_and_removed(tidegate: Run, home: Path, public: Path) -> None:
    added = tidegate("trust", "add", str(public))
    assert added.returncode == 0, added.stderr
    assert added.stdout.startswith("acme: trusted, SHA-256 ")
    assert (home / "keys" / "trusted" / "acme.pem").exists()
    rows = json.loads(tidegate("trust", "list", "--json").stdout)
    assert [(row["name"], row["state"]) for row in rows] == [
        ("official", "trusted"),
        ("acme", "trusted"),
    ]
    assert rows[1]["sha256"] in added.stdout
    assert tidegate("trust", "add", str(public)).returncode == 0
    assert tidegate("trust", "remove", "acme").returncode == 0
    assert tidegate("trust", "remove", "acme").returncode == 1
    assert len(json.loads(tidegate("trust", "list", "--json").stdout)) == 1


def test_what_is_no_key_is_refused_and_disables_itself_only(
    tidegate: Run, home: Path, tmp_path: Path, public: Path
) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no key")
    refused = tidegate("trust", "add", str(bad))
    assert refused.returncode == 1
    assert "is no public key in PEM form" in refused.stderr
    tidegate("trust", "add", str(public))
    (home / "keys" / "trusted" / "bad.pem").write_text("no key")
    rows = json.loads(tidegate("trust", "list", "--json").stdout)
    assert [row["name"] for row in rows] == ["official", "acme", ""]
    assert "bad.pem: is no public key" in rows[2]["state"]


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden"])
def test_names_cannot_lead_elsewhere(tidegate: Run, public: Path, name: str) -> None:
    assert tidegate("trust", "remove", name).returncode == 2
    if name:
        assert tidegate("trust", "add", str(public), "--name", name).returncode == 2


def test_another_key_under_the_same_name_is_refused(
    tidegate: Run, tmp_path: Path, public: Path
) -> None:
    other = tmp_path / "other" / "acme.pem"
    other.parent.mkdir()
    other.write_bytes(generate_key(bits=2048)[1])
    tidegate("trust", "add", str(public))
    refused = tidegate("trust", "add", str(other))
    assert "give --name" in refused.stderr
    assert tidegate("trust", "add", str(other), "--name", "second").returncode == 0


def test_uploads_follow_at_once_and_say_which_step_failed(
    tidegate: Run, home: Path, pair: tuple[bytes, bytes], public: Path
) -> None:
    settings = Settings.load({"TIDEGATE_HOME": str(home)})
    home.mkdir()
    migrate(settings)
    database = Database(settings)
    uploads = Uploads(
        settings, database, Shelf(settings, open_blobs(settings)), lambda generation: None
    )
    plain = build_package(EXAMPLE)
    signed = sign(open_package(plain, limit=1 << 26), pair[0], "partner")

    def refusal(data: bytes) -> str:
        with pytest.raises(PackageRejected) as caught:
            uploads.take(data, must_be_signed=True)
        return caught.value.message

    assert "bad signature: the package is not signed" in refusal(plain)
    assert "none of the trusted keys (official)" in refusal(signed)
    assert tidegate("trust", "add", str(public)).returncode == 0
    taken = uploads.take(signed, must_be_signed=True)
    assert taken.verification is not None
    assert taken.verification.authorized_category == "partner"
    tidegate("trust", "remove", "acme")
    assert "none of the trusted keys" in refusal(signed)
    database.dispose()
