"""The checksum and identifier by which Dify knows a package."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from tests.crafted_packages import LIMIT, plugin, zipped
from tidegate.errors import PackageRejected
from tidegate.packages import open_package
from tidegate.packages.checksum import checksum_of, digests_of

PUBLISHED = json.loads(
    (Path(__file__).parent / "corpus" / "published_checksums.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_package_has_its_published_checksum(name):
    digests = {path: bytes.fromhex(text) for path, text in PUBLISHED[name]["sha256"].items()}
    assert checksum_of(digests) == PUBLISHED[name]["checksum"]


def test_checksum_is_what_the_rule_says_written_out():
    def sha(data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    by_hand = sha(b"B.txt") + sha(b"two") + sha(b"a/c.txt") + sha(b"one")
    by_hand += sha("é".encode()) + sha(b"")
    digests = digests_of([("é", b""), ("a/c.txt", b"one"), ("B.txt", b"two")])
    assert checksum_of(digests) == hashlib.sha256(by_hand).hexdigest()


def test_order_packing_and_comment_do_not_count():
    files = plugin()
    turned = dict(reversed(files.items()))
    packages = [
        open_package(data, limit=LIMIT)
        for data in (
            zipped(files),
            zipped(turned, method=zipfile.ZIP_STORED),
            zipped(files, comment=b"signed by nobody"),
        )
    ]
    assert len({package.checksum for package in packages}) == 1


@pytest.mark.parametrize(
    "changed",
    [
        plugin(main__py="other"),
        plugin() | {"new": b""},
        plugin() | {".verification.dify.json": b"{}"},
        {name.replace("main.py", "mein.py"): body for name, body in plugin().items()},
    ],
)
def test_names_contents_and_dot_files_count(changed):
    before = open_package(zipped(plugin()), limit=LIMIT)
    assert open_package(zipped(changed), limit=LIMIT).checksum != before.checksum


def test_identifier_names_author_name_version_and_checksum():
    package = open_package(zipped(plugin()), limit=LIMIT)
    assert str(package.identifier) == f"acme/weather:0.0.1@{package.checksum}"


@pytest.mark.parametrize("version", ["1", "1.2.3.4.5", "v1.0.0", "1.0.0 ", "", "12345.0.0"])
def test_version_that_makes_no_identifier_is_rejected(version):
    from tests.crafted_packages import MANIFEST

    manifest = MANIFEST.replace("version: 0.0.1", f"version: '{version}'", 1)
    with pytest.raises(PackageRejected, match="illegal plugin manifest"):
        open_package(zipped(plugin(manifest__yaml=manifest)), limit=LIMIT)
