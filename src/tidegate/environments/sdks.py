"""The SDK in a new environment: what is known to hurt its users' neighbours is mended.

The reference goes by the text of the dependency file and overwrites whole files of the SDK, also
newer ones (spec/plugin/07 section 6). Here the distribution that was installed says its version,
and :mod:`tidegate.environments.mending` wraps single functions of it.
"""

from __future__ import annotations

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


def mend_sdk(environment: Path, progress: Callable[[str, str], None]) -> Version | None:
    """Called with each new environment before it gets its name; the version that was mended.

    None when there is no SDK in it. ``progress`` is told when the SDK is an old one.
    """
    for site in environment.glob("lib/python*/site-packages"):
        version = _installed(site)
        # Installing may have run a package's own code, and links are what it would leave.
        if version is None or not site.resolve().is_relative_to(environment.resolve()):
            continue
        old = version < FIRST_GOOD
        _write(site / f"{_NAME}.py", Path(mending.__file__).read_text("utf-8"))
        _write(site / f"{_NAME}.pth", f"import {_NAME}; {_NAME}.install(old={old})\n")
        if old:
            text = f"this plugin brings SDK {version}, older than {FIRST_GOOD}: it is mended"
            progress("environment", text)
            log.warning("old SDK mended", version=str(version), environment=environment.name)
        return version
    return None


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with path.open("x", encoding="utf-8") as file:  # "x" does not follow a link
        file.write(text)


def _installed(site: Path) -> Version | None:
    for metadata in site.glob("dify_plugin-*.dist-info/METADATA"):
        headers = Parser().parsestr(metadata.read_text("utf-8", "replace"), headersonly=True)
        try:
            return Version(str(headers.get("Version", "")))
        except InvalidVersion:
            return None
    return None
