"""Whose packages are trusted: keys, and what a signature proves (spec/plugin/08 section 3).

A signature covers the contents in archive order but not their names (D-34), and the category is
only a file in the package (D-64). Two rules make up for it:

* The category counts only in the *last* entry under its right name, where signers put it, so that
  renaming entries cannot change it. A file there may also pin all names (:mod:`.signing` does).
* Only the official key can say ``langgenius``. What any other key signed is at most ``community``
  or ``partner``.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tidegate.errors import PackageRejected
from tidegate.packages.checksum import checksum_of
from tidegate.packages.package import Package
from tidegate.settings import Settings

VERIFICATION_FILE: Final = ".verification.dify.json"
LANGGENIUS: Final = "langgenius"
CATEGORIES: Final = (LANGGENIUS, "partner", "community")
_LEAST_BITS = 2048
# A category file is a line; anything longer is no category file, whatever is in it.
_LONGEST_VERIFICATION = 4096

OFFICIAL_KEY: Final = b"""\
-----BEGIN RSA PUBLIC KEY-----
MIICCgKCAgEAwUY1cndCmqclHHlCn/PVB011n0m+vmXT2M/QWbViM/2oqO2S5lXl
VYwZjbN+r3xjUxnzCK6YC7fCI0CXJ69RPTpfRc9meV0TPb50g01kJI6HWL+SziZs
i+Mmul5ji7W4ebpOUNUPuBgFFfzrOv4BSO6tWVfpiqFTdfF3o2XT3FUja2rMCSQO
dsGvuhX5/YYAnOH4suxGo+nWda/QC+ohM4z8yLuM6fo7QPmkjTXN+jr7+RZ6JA7g
6XT7TdMK8oJcqMm15E0pRmgfNNLvqSeVcVM5OgmteTpSn7ekSdCMOpai3Cnc4zOa
PWSViiHTDu9AIoDbSBRQbvOaQ339eXOlHnomvg6WK6hw3hYoE+ASkv5qK9BwuWqn
xdUQ99qJ04eNTGjqCo65P9DKzpDb5BT5cxg40Utue0MbuN6pLPwhqkvnVmExuykw
aLQmTwnLODOD4gc5UU1dUeSUOxQeSoL8zSqL809ZV89B31jYOSFqcKEbyhoKaen3
dQSUFxEIca7Juj4E4tC+V1RsU2GSaVRCKEtJ4RBnDkQvB4aRBL+zpc26aIBKb3G3
0a9BWRvXRy+gr/qx8fDJgOuF23j1WXEDVsNtK6vpHGQkDUmsBsE2U+Sag9l2Vnq1
hrqLbjz2PPOHsBkg09IlM6SNr2NaEWvVJnC/szW8EQ51QBz8XJOnEmUCAwEAAQ==
-----END RSA PUBLIC KEY-----
"""


@final
@dataclass(frozen=True, slots=True)
class TrustedKey:
    """One public key that packages may be signed with."""

    key: rsa.RSAPublicKey
    official: bool
    source: str  #: ``official``, or the file that it was read from

    @property
    def name(self) -> str:
        """``official``, or the file's name: who uploads a package is not told where files are."""
        return Path(self.source).name

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the key's DER form, hexadecimal: what a person compares."""
        form = self.key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(form).hexdigest()


@final
@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """The official key, and those that this installation added.

    ``refused`` says of each key file that cannot be used why; it disables only itself. The caller
    logs it.
    """

    keys: tuple[TrustedKey, ...]
    refused: tuple[str, ...] = ()

    @classmethod
    def load(cls, settings: Settings) -> TrustedKeys:
        """Official key; ``keys/trusted/*.pem`` of the data folder; the settings' extra keys.

        Reads files, raises nothing: cheap enough to be called for each upload, so that a key that
        was just added counts at once.
        """
        paths = sorted((settings.home.keys / "trusted").glob("*.pem"))
        if settings.third_party_signature_verification_enabled:
            paths += map(Path, settings.third_party_signature_verification_public_keys)
        keys, refused = [read_public_key(OFFICIAL_KEY, "official", official=True)], []
        for path in paths:
            try:
                keys.append(read_public_key(path.read_bytes(), str(path)))
            except (OSError, PackageRejected) as error:
                refused.append(f"{path}: {error}")
        return cls(tuple(keys), tuple(refused))


def read_public_key(pem: bytes, source: str, *, official: bool = False) -> TrustedKey:
    """A PEM public key (``RSA PUBLIC KEY`` or ``PUBLIC KEY``, any line ends) of 2048 bits or more.

    PackageRejected says what is wrong with it.
    """
    try:
        # Keys come by mail, with the line ends of somewhere else.
        key = serialization.load_pem_public_key(pem.replace(b"\r", b""))
    except (ValueError, UnsupportedAlgorithm):
        raise PackageRejected("is no public key in PEM form") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise PackageRejected("is no RSA key")
    if key.key_size < _LEAST_BITS:
        raise PackageRejected(f"has {key.key_size} bits, at least {_LEAST_BITS} are needed")
    return TrustedKey(key, official, source)


@final
class Signature(msgspec.Struct, frozen=True):
    """The archive comment of a signed package."""

    signature: str
    time: int


@final
class CategoryFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """``.verification.dify.json``. ``tidegate_names`` pins names: checksum of all other files."""

    authorized_category: str
    tidegate_names: str = ""


@final
@dataclass(frozen=True, slots=True)
class Verification:
    """What a valid signature proves."""

    authorized_category: str
    signed_by: TrustedKey
    signed_at: int  #: unix seconds, as the signer says
    names_pinned: bool  #: whether the names of the files are covered, too

    def as_dict(self) -> dict[str, str]:
        """The JSON that Dify knows."""
        return {"authorized_category": self.authorized_category}


def verify(package: Package, keys: TrustedKeys | Iterable[TrustedKey]) -> Verification | None:
    """Check the package's signature; None when it has none or none that counts. Never raises."""
    found = examine(package, keys)
    return found if isinstance(found, Verification) else None


def examine(package: Package, keys: TrustedKeys | Iterable[TrustedKey]) -> Verification | str:
    """As :func:`verify`, but says which step failed instead of None."""
    trusted = list(keys.keys if isinstance(keys, TrustedKeys) else keys)
    if not package.comment.strip():
        return "the package is not signed"
    found = signer_of(package.comment, package.digests.values(), trusted)
    if found is None:
        return _why_nobody(package.comment, trusted)
    signer, time = found
    category = _category_of(package, signer)
    if isinstance(category, str):
        return category
    return Verification(category[0], signer, time, category[1])


def _why_nobody(comment: bytes, trusted: list[TrustedKey]) -> str:
    if _stated(comment) is None:
        return "its archive comment is no signature: {signature, time} is expected"
    return (
        "its signature was made with none of the trusted keys "
        f"({', '.join(key.name for key in trusted)}), or its files changed afterwards"
    )


def signer_of(
    comment: bytes, digests: Iterable[bytes], keys: Iterable[TrustedKey]
) -> tuple[TrustedKey, int] | None:
    """Who of ``keys`` signed these contents, and when, by the archive's comment; None when nobody.

    Says nothing about the names of the files: :func:`verify` does.
    """
    stated = _stated(comment)
    if stated is None:
        return None
    signature, time = stated
    message = signed_bytes(digests, time)
    signer = next((key for key in keys if _is_signed(key.key, signature, message)), None)
    return None if signer is None else (signer, time)


def _stated(comment: bytes) -> tuple[bytes, int] | None:
    """(signature, time) of an archive comment; None when it has none."""
    try:
        stated = msgspec.json.decode(comment, type=Signature)
        return base64.b64decode(stated.signature, validate=True), stated.time
    except ValueError:
        return None


def signed_bytes(digests: Iterable[bytes], time: int) -> bytes:
    """What is signed: the digests in archive order, then the time in decimal."""
    return b"".join(digests) + str(time).encode()


def require_author(package: Package, verification: Verification | None) -> None:
    """Refuse a package whose author is reserved and that its owner did not sign (D-30, T-S9)."""
    reserved = package.manifest.author.lower() == LANGGENIUS
    if reserved and (verification is None or verification.authorized_category != LANGGENIUS):
        raise PackageRejected(
            f"author {LANGGENIUS} is reserved: the package needs the official signature "
            "(ENFORCE_LANGGENIUS_PLUGIN_SIGNATURES)"
        )


def _is_signed(key: rsa.RSAPublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def _category_of(package: Package, signer: TrustedKey) -> tuple[str, bool] | str:
    """(category, whether names are pinned), or why the signed category does not count."""
    last = package.names[-1]
    named = VERIFICATION_FILE in package
    stated = _read_category(package, last)
    # Its name, its place and its content belong together, or renaming could make another file the
    # one that counts.
    if named != (last == VERIFICATION_FILE) or named != (stated is not None):
        return f"{VERIFICATION_FILE} is not the last file, or cannot be read"
    if stated is None:
        # Packages from before there were categories are all official.
        return (LANGGENIUS if signer.official else "community"), False
    if stated.authorized_category not in CATEGORIES:
        return f"{VERIFICATION_FILE} states a category that is none of {', '.join(CATEGORIES)}"
    if stated.tidegate_names and stated.tidegate_names != names_pin(package):
        return "its files were renamed after signing"
    category = stated.authorized_category
    # Lowered and not refused: whoever signs for himself may well sign a copy of an official
    # package.
    if category == LANGGENIUS and not signer.official:
        category = "community"
    return category, bool(stated.tidegate_names)


def names_pin(package: Package) -> str:
    """Checksum of all files but the verification file: names and contents together."""
    return checksum_of(
        {name: digest for name, digest in package.digests.items() if name != VERIFICATION_FILE}
    )


def _read_category(package: Package, name: str) -> CategoryFile | None:
    if package.size(name) > _LONGEST_VERIFICATION:
        return None
    try:
        return msgspec.json.decode(package.read(name), type=CategoryFile)
    except ValueError:
        return None
