"""Taking bundles in: every package of one, or none (spec/http/01 section 3.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from tidegate.installs.native import in_thread
from tidegate.installs.uploads import Uploaded, Uploads
from tidegate.packages import open_bundle
from tidegate.settings import Settings


@final
@dataclass(frozen=True, slots=True)
class Bundled:
    """One plugin of a bundle: where it can be had, or the package that was taken."""

    type: str
    value: dict[str, str]
    uploaded: Uploaded | None = None


def take_bundle(
    settings: Settings, uploads: Uploads, data: bytes, *, must_be_signed: bool
) -> list[Bundled]:
    """Keep the packages of a bundle. PackageRejected says what is wrong, and with which one."""
    found = in_thread(open_bundle, data, limit=settings.max_bundle_package_size)
    packages = [one.package for one in found if one.type == "package"]
    taken = iter(uploads.take_all(packages, must_be_signed=must_be_signed))
    return [
        Bundled(one.type, one.value, next(taken) if one.type == "package" else None)
        for one in found
    ]
