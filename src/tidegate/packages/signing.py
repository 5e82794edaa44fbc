"""Signing packages, and making the keys for it (spec/plugin/08 section 3)."""

from __future__ import annotations

import base64

import msgspec
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tidegate.clock import SYSTEM_CLOCK, Clock
from tidegate.errors import PackageRejected
from tidegate.packages.package import Package
from tidegate.packages.trust import (
    CATEGORIES,
    VERIFICATION_FILE,
    CategoryFile,
    Signature,
    names_pin,
    signed_bytes,
)
from tidegate.packages.writing import write_archive

_BITS = 4096


def generate_key(*, bits: int = _BITS) -> tuple[bytes, bytes]:
    """A new (private, public) key pair as PEM, PKCS#1, as the reference's tools write them.

    Takes seconds. Whoever stores the private part gives it mode 0600.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.PKCS1
    )
    return private, public


def sign(
    package: Package, private_key: bytes, category: str, *, clock: Clock = SYSTEM_CLOCK
) -> bytes:
    """The signed package: the same files in the same order, the verification file last.

    The verification file states ``category`` (langgenius, partner, community) and pins all names;
    an older one is replaced. Signing changes the identifier, because that file counts.
    Raises PackageRejected for an unknown category or a key that is none.
    """
    if category not in CATEGORIES:
        raise PackageRejected(f"category {category!r} is none of {', '.join(CATEGORIES)}")
    key = _read_private_key(private_key)
    stated = CategoryFile(authorized_category=category, tidegate_names=names_pin(package))
    # In their order, the verification file last: the signature covers contents by position.
    names = [name for name in package.names if name != VERIFICATION_FILE]
    verification = msgspec.json.encode(stated)
    digests = [package.digests[name] for name in names] + [_sha256(verification)]
    time = int(clock.now().timestamp())
    signature = key.sign(signed_bytes(digests, time), padding.PKCS1v15(), hashes.SHA256())
    comment = Signature(signature=base64.b64encode(signature).decode(), time=time)
    files = {name: package.read(name) for name in names} | {VERIFICATION_FILE: verification}
    return write_archive(files, comment=msgspec.json.encode(comment))


def _read_private_key(pem: bytes) -> rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(pem.replace(b"\r", b""), password=None)
    except (ValueError, TypeError):
        raise PackageRejected("the signing key is no private key in PEM form") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise PackageRejected("the signing key is no RSA key")
    return key


def _sha256(content: bytes) -> bytes:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(content)
    return digest.finalize()
