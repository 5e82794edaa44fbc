"""Old SDKs: what is known to hurt is mended, in new environments, by the installed version.

The reference goes by the text of the dependency file and overwrites whole files of the SDK, also
newer ones (spec/plugin/07 section 6). Here the distribution that was installed says its version,
and :mod:`tidegate.environments.mending` wraps single functions of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path
from typing import Final

from packaging.version import InvalidVersion, Version

from tidegate.environments import mending
from tidegate.telemetry.logs import get_log

log = get_log("environments")

FIRST_GOOD: Final = Version("0.1.1")
_NAME: Final = "tidegate_mending"


def mend_old_sdk(environment: Path, progress: Callable[[str, str], None]) -> Version | None:
    """Called with each new environment before it gets its name; the version that was mended.

    None when the SDK is new enough or there is none.
    """
    for site in environment.glob("lib/python*/site-packages"):
        version = _installed(site)
        if version is not None and version < FIRST_GOOD:
            shutil.copyfile(mending.__file__, site / f"{_NAME}.py")
            (site / f"{_NAME}.pth").write_text(
                f"import {_NAME}; {_NAME}.install()\n", encoding="utf-8"
            )
            text = f"this plugin brings SDK {version}, older than {FIRST_GOOD}: it is mended"
            progress("environment", text)
            log.warning("old SDK mended", version=str(version), environment=environment.name)
            return version
    return None


def _installed(site: Path) -> Version | None:
    for metadata in site.glob("dify_plugin-*.dist-info/METADATA"):
        headers = Parser().parsestr(metadata.read_text("utf-8", "replace"), headersonly=True)
        try:
            return Version(str(headers.get("Version", "")))
        except InvalidVersion:
            return None
    return None
