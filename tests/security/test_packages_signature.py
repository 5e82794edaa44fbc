"""T-S5, T-S9, D-30, D-34, D-64: what a signature proves, and what it does not."""

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from tests.crafted_packages import LIMIT, MANIFEST, plugin, zipped
from tidegate.errors import PackageRejected
from tidegate.packages import (
    TrustedKeys,
    generate_key,
    open_package,
    read_public_key,
    require_author,
    sign,
    verify,
)
from tidegate.packages.trust import (
    OFFICIAL_KEY,
    VERIFICATION_FILE,
    TrustedKey,
    examine,
    signed_bytes,
    signer_of,
)
from tidegate.settings import Settings

PUBLISHED = json.loads(
    (
        Path(__file__).parents[1] / "unit" / "packages" / "corpus" / "published_checksums.json"
    ).read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, bytes]:
    return generate_key(bits=2048)


@pytest.fixture(scope="module")
def other_pair() -> tuple[bytes, bytes]:
    return generate_key(bits=2048)


@pytest.fixture
def extra(pair) -> TrustedKey:
    """The key as one that this installation added."""
    return read_public_key(pair[1], "extra.pem")


@pytest.fixture
def official(pair) -> TrustedKey:
    """The key in the role of the official one."""
    return read_public_key(pair[1], "official", official=True)


def opened(files=None, comment: bytes = b""):
    return open_package(zipped(plugin() if files is None else files, comment=comment), limit=LIMIT)


def signed(pair, category: str = "community", files=None):
    return open_package(sign(opened(files), pair[0], category), limit=LIMIT)


def signed_as_the_reference_does(pair, files) -> bytes:
    """A comment over contents only: no names are pinned."""
    package = opened(files)
    key = serialization.load_pem_private_key(pair[0], None)
    message = signed_bytes(package.digests.values(), 1744632035)
    signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    return json.dumps(
        {"signature": base64.b64encode(signature).decode(), "time": 1744632035}
    ).encode()


def category_file(category: str) -> dict[str, bytes]:
    return {VERIFICATION_FILE: json.dumps({"authorized_category": category}).encode()}


def renamed(package, **names) -> dict[str, bytes]:
    """The same contents in the same order under other names."""
    names = {old.replace("__", "."): new for old, new in names.items()}
    return {names.get(name, name): package.read(name) for name in package.names}


# --------------------------------------------------------------------------- the real thing


def test_published_package_verifies_with_the_official_key():
    published = PUBLISHED["langgenius/agent:0.0.14"]
    digests = [bytes.fromhex(text) for text in published["sha256"].values()]
    key = read_public_key(OFFICIAL_KEY, "official", official=True)
    assert key.key.key_size == 4096
    found = signer_of(published["comment"].encode(), digests, [key])
    assert found == (key, 1744632035)
    assert signer_of(published["comment"].encode(), digests[::-1], [key]) is None
    assert signer_of(published["comment"].encode(), digests[:-1], [key]) is None


def test_unsigned_published_packages_do_not_verify():
    keys = TrustedKeys.load(Settings()).keys
    for name in ("langgenius/openai:0.0.19", "test/test:0.0.1"):
        digests = [bytes.fromhex(text) for text in PUBLISHED[name]["sha256"].values()]
        assert signer_of(PUBLISHED[name]["comment"].encode(), digests, keys) is None


# --------------------------------------------------------------------------- signing


def test_signed_package_verifies_and_says_who_and_what(pair, extra):
    before = opened()
    package = signed(pair, "partner")
    assert package.names == (*before.names, VERIFICATION_FILE)
    assert package.checksum != before.checksum
    found = verify(package, [extra])
    assert found is not None
    assert found.authorized_category == "partner"
    assert found.signed_by is extra
    assert found.names_pinned
    assert found.as_dict() == {"authorized_category": "partner"}
    stated = json.loads(package.read(VERIFICATION_FILE))
    assert stated["authorized_category"] == "partner"


def test_signing_again_replaces_the_first_signature(pair, other_pair):
    again = open_package(sign(signed(pair), other_pair[0], "partner"), limit=LIMIT)
    assert again.names.count(VERIFICATION_FILE) == 1
    assert verify(again, [read_public_key(pair[1], "first")]) is None
    found = verify(again, [read_public_key(other_pair[1], "second")])
    assert found is not None
    assert found.authorized_category == "partner"


def test_signing_with_what_is_no_key_or_no_category_is_refused(pair):
    with pytest.raises(PackageRejected, match="category 'official'"):
        sign(opened(), pair[0], "official")
    with pytest.raises(PackageRejected, match="no private key"):
        sign(opened(), pair[1], "community")
    elliptic = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with pytest.raises(PackageRejected, match="no RSA key"):
        sign(opened(), elliptic, "community")


def test_generated_keys_have_the_reference_form(pair):
    private, public = pair
    assert private.startswith(b"-----BEGIN RSA PRIVATE KEY-----")
    assert public.startswith(b"-----BEGIN RSA PUBLIC KEY-----")
    key = read_public_key(public.replace(b"\n", b"\r\n"), "windows.pem")
    assert len(key.fingerprint) == 64
    assert read_public_key(public, "unix.pem").fingerprint == key.fingerprint


# --------------------------------------------------------------------------- T-S5


@pytest.mark.parametrize(
    "comment",
    [
        b"", b"{}", b"null", b"[]", b"text", b'{"signature": "", "time": 1}',
        b'{"signature": "!!!!", "time": 1}', b'{"signature": 5, "time": 1}',
        b'{"signature": "AAAA", "time": "now"}', b'{"signature": "AAAA"}', b'{"time": 1}',
        b'{"signature": "AAAA", "time": 1e99}', b"\xff\xfe",
    ],
)  # fmt: skip
def test_T_S5_stripped_or_broken_signature_is_none(extra, comment):
    assert verify(opened(comment=comment), [extra]) is None


def test_T_S5_forged_signature_is_rejected(pair, other_pair, extra):
    assert verify(signed(other_pair), [extra]) is None


def test_T_S5_truncated_or_changed_signature_is_rejected(pair, extra):
    package = signed(pair)
    files = {name: package.read(name) for name in package.names}
    comment = json.loads(package.comment)
    raw = base64.b64decode(comment["signature"])
    for bad in (raw[:-1], raw + b"\0", bytes([raw[0] ^ 1]) + raw[1:], raw[::-1], b"\0" * 256):
        changed = comment | {"signature": base64.b64encode(bad).decode()}
        assert verify(opened(files, json.dumps(changed).encode()), [extra]) is None
    later = json.dumps(comment | {"time": comment["time"] + 1}).encode()
    assert verify(opened(files, later), [extra]) is None
    assert verify(opened(files, package.comment), [extra]) is not None


def test_T_S5_signature_of_another_package_is_rejected(pair, extra):
    comment = signed(pair).comment
    changed = {name: signed(pair).read(name) for name in signed(pair).names}
    changed["main.py"] = b"import os"
    assert verify(opened(changed, comment), [extra]) is None
    assert verify(opened(plugin(), comment), [extra]) is None


def test_T_S5_files_in_another_order_are_rejected(pair, extra):
    package = signed(pair)
    turned = {name: package.read(name) for name in reversed(package.names)}
    assert verify(opened(turned, package.comment), [extra]) is None


def test_T_S5_wrong_padding_or_hash_is_rejected(pair, extra):
    package = opened(plugin() | category_file("community"))
    message = signed_bytes(package.digests.values(), 1)
    key = serialization.load_pem_private_key(pair[0], None)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
    for scheme, algorithm in ((pss, hashes.SHA256()), (padding.PKCS1v15(), hashes.SHA1())):  # noqa: S303
        signature = base64.b64encode(key.sign(message, scheme, algorithm)).decode()
        comment = json.dumps({"signature": signature, "time": 1}).encode()
        files = {name: package.read(name) for name in package.names}
        assert verify(opened(files, comment), [extra]) is None


def test_T_S5_weak_or_foreign_key_is_refused():
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - the point
    elliptic = ec.generate_private_key(ec.SECP256R1())
    for key, why in ((weak, "1024 bits"), (elliptic, "no RSA key")):
        pem = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        with pytest.raises(PackageRejected, match=why):
            read_public_key(pem, "key.pem")
    for junk in (b"", b"-----BEGIN RSA PUBLIC KEY-----\nAAAA\n-----END RSA PUBLIC KEY-----\n"):
        with pytest.raises(PackageRejected, match="no public key"):
            read_public_key(junk, "key.pem")


# --------------------------------------------------------------------------- D-34: names


def test_D_34_renamed_files_of_our_packages_are_rejected(pair, extra):
    package = signed(pair)
    moved = renamed(package, main__py="mein.py")
    assert verify(opened(moved, package.comment), [extra]) is None
    swapped = {
        "tools/today.yaml": "provider/weather.yaml",
        "provider/weather.yaml": "tools/today.yaml",
    }
    files = {swapped.get(name, name): package.read(name) for name in package.names}
    files = {name: files[name] for name in files}
    assert verify(opened(files, package.comment), [extra]) is None


def test_D_34_package_signed_without_pinned_names_says_so(pair, official):
    files = plugin() | category_file("partner")
    comment = signed_as_the_reference_does(pair, files)
    found = verify(opened(files, comment), [official])
    assert found is not None
    assert not found.names_pinned
    moved = renamed(opened(files), main__py="mein.py")
    assert verify(opened(moved, comment), [official]) is not None


# --------------------------------------------------------------------------- D-64: categories


@pytest.mark.parametrize("category", ["langgenius", "partner", "community"])
def test_D_64_only_the_official_key_can_say_langgenius(pair, official, extra, category):
    package = signed(pair, category)
    by_official, by_extra = verify(package, [official]), verify(package, [extra])
    assert by_official is not None
    assert by_extra is not None
    assert by_official.authorized_category == category
    assert by_extra.authorized_category == category.replace("langgenius", "community")


def test_D_64_package_without_a_category_is_official_only_by_the_official_key(
    pair, official, extra
):
    comment = signed_as_the_reference_does(pair, plugin())
    package = opened(plugin(), comment)
    by_official, by_extra = verify(package, [official]), verify(package, [extra])
    assert by_official is not None
    assert by_extra is not None
    assert by_official.authorized_category == "langgenius"
    assert by_extra.authorized_category == "community"


def test_D_64_renaming_the_category_file_away_does_not_raise_the_category(pair, official):
    files = plugin() | category_file("community")
    comment = signed_as_the_reference_does(pair, files)
    hidden = {name.replace(VERIFICATION_FILE, "notes.txt"): body for name, body in files.items()}
    assert verify(opened(files, comment), [official]) is not None
    assert verify(opened(hidden, comment), [official]) is None


def test_D_64_another_file_cannot_take_the_place_of_the_category_file(pair, official):
    bait = {"bait.json": category_file("langgenius")[VERIFICATION_FILE]}
    files = bait | plugin() | category_file("community")
    comment = signed_as_the_reference_does(pair, files)
    swap = {"bait.json": VERIFICATION_FILE, VERIFICATION_FILE: "bait.json"}
    swapped = {swap.get(name, name): body for name, body in files.items()}
    assert verify(opened(swapped, comment), [official]) is None


@pytest.mark.parametrize("category", ["official", "", "LANGGENIUS"])
def test_D_64_unknown_category_does_not_count(pair, official, category):
    files = plugin() | category_file(category)
    assert verify(opened(files, signed_as_the_reference_does(pair, files)), [official]) is None


def test_D_64_huge_category_file_does_not_count(pair, official):
    files = plugin() | {
        VERIFICATION_FILE: category_file("partner")[VERIFICATION_FILE] + b" " * 5000
    }
    assert verify(opened(files, signed_as_the_reference_does(pair, files)), [official]) is None


# --------------------------------------------------------------------------- T-S9, D-30


def test_T_S9_reserved_author_needs_the_official_signature(pair, official, extra):
    files = plugin(manifest__yaml=MANIFEST.replace("author: acme", "author: langgenius"))
    package = signed(pair, "langgenius", files)
    require_author(package, verify(package, [official]))
    for verification in (verify(package, [extra]), None):
        with pytest.raises(PackageRejected, match="author langgenius is reserved"):
            require_author(package, verification)


def test_T_S9_any_other_author_needs_no_signature():
    require_author(opened(), None)


# --------------------------------------------------------------------------- which keys count


def loaded(tmp_path: Path, **values) -> TrustedKeys:
    return TrustedKeys.load(Settings(tidegate_home=str(tmp_path), **values))


def test_only_the_official_key_counts_by_default(tmp_path):
    keys = loaded(tmp_path)
    assert [key.source for key in keys.keys] == ["official"]
    assert keys.refused == ()


def test_keys_of_the_settings_count_when_enabled(tmp_path, pair):
    path = tmp_path / "site.pem"
    path.write_bytes(pair[1].replace(b"\n", b"\r\n"))
    paths = {"third_party_signature_verification_public_keys": (str(path),)}
    assert len(loaded(tmp_path, **paths).keys) == 1
    keys = loaded(tmp_path, third_party_signature_verification_enabled=True, **paths)
    assert [key.source for key in keys.keys] == ["official", str(path)]
    assert not keys.keys[1].official
    assert verify(signed(pair), keys) is not None


def test_keys_in_the_trusted_folder_count_always(tmp_path, pair):
    folder = tmp_path / "keys" / "trusted"
    folder.mkdir(parents=True)
    (folder / "local.pem").write_bytes(pair[1])
    (folder / "readme.txt").write_bytes(b"not a key")
    assert len(loaded(tmp_path).keys) == 2


def test_who_uploads_is_told_the_names_of_keys_and_not_where_they_are(tmp_path, pair, other_pair):
    folder = tmp_path / "keys" / "trusted"
    folder.mkdir(parents=True)
    (folder / "acme.pem").write_bytes(pair[1])
    told = examine(signed(other_pair), loaded(tmp_path).keys)
    assert isinstance(told, str)
    assert "trusted keys (official, acme.pem)" in told
    assert str(tmp_path) not in told


def test_bad_extra_key_disables_only_itself(tmp_path, pair):
    good, junk = tmp_path / "good.pem", tmp_path / "junk.pem"
    good.write_bytes(pair[1])
    junk.write_bytes(b"junk")
    listed = (str(junk), str(tmp_path / "missing.pem"), str(good))
    keys = loaded(
        tmp_path,
        third_party_signature_verification_enabled=True,
        third_party_signature_verification_public_keys=listed,
    )
    assert [key.source for key in keys.keys] == ["official", str(good)]
    assert len(keys.refused) == 2
    assert "junk.pem: is no public key" in keys.refused[0]
    assert verify(signed(pair), keys) is not None
