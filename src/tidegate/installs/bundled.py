"""Taking bundles in: every package of one, or none (spec/http/01 section 3.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import gevent

from tidegate.errors import PackageRejected
from tidegate.installs.uploads import Uploaded, Uploads, bare
from tidegate.packages import Dependency, open_bundle
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
    work = (data, settings.max_bundle_package_size)
    found = gevent.get_hub().threadpool.apply(_opened_or_error, work)
    if isinstance(found, PackageRejected):
        raise bare(found)
    packages = [one.package for one in found if one.type == "package"]
    taken = iter(uploads.take_all(packages, must_be_signed=must_be_signed))
    return [
        Bundled(one.type, one.value, next(taken) if one.type == "package" else None)
        for one in found
    ]


def _opened_or_error(data: bytes, limit: int) -> list[Dependency] | PackageRejected:
    """A refusal is returned: gevent prints what its threads raise."""
    try:
        return open_bundle(data, limit=limit)
    except PackageRejected as error:
        return bare(error)
