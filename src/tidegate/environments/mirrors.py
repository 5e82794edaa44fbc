"""Which package index uv is pointed at (spec/plugin/07 section 4).

``PIP_MIRROR_URL`` wins. With ``PIP_MIRROR_AUTO_DETECT`` the official index and the candidates are
asked once, all at the same time: a candidate is taken when the official index does not answer, or
answers and is not at least as fast within a tenth. Nothing is asked unless that is switched on.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Final, final

import gevent

from tidegate.clock import SYSTEM_CLOCK
from tidegate.settings import Settings
from tidegate.telemetry.logs import get_log

log = get_log("environments")

OFFICIAL: Final = "https://pypi.org/simple/"
_FASTER_BY: Final = 0.9


@final
class Mirror:
    """The index of one host. Asked for by each build; probes at the first, if at all."""

    def __init__(self, settings: Settings, official: str = OFFICIAL) -> None:
        self._settings = settings
        self._official = official
        self._found: str | None = None

    def url(self) -> str:
        """The index to use instead of the official one; empty for the official one."""
        if self._settings.pip_mirror_url:
            return self._settings.pip_mirror_url
        if self._found is None:
            probe = self._settings.pip_mirror_auto_detect and self._settings.pip_mirror_candidates
            self._found = self._fastest() if probe else ""
        return self._found

    def _fastest(self) -> str:
        candidates = self._settings.pip_mirror_candidates
        limit = float(self._settings.pip_mirror_auto_detect_timeout)
        probes = [gevent.spawn(_seconds, url, limit) for url in (self._official, *candidates)]
        gevent.joinall(probes, timeout=limit)
        # Whoever is slower than the limit would answer to nobody.
        gevent.killall(probes)
        official, *times = [one.value if isinstance(one.value, float) else None for one in probes]
        answered = [(took, url) for took, url in zip(times, candidates, strict=True) if took]
        if not answered:
            return ""
        took, url = min(answered)
        # A tenth: who leaves the official index should gain by it.
        if official is not None and took >= official * _FASTER_BY:
            return ""
        log.warning("package mirror chosen by speed", url=url, seconds=took, official=official)
        return url


def _seconds(url: str, limit: float) -> float | None:
    """How long the head of ``url`` took; None when it was not had."""
    if not url.startswith(("http://", "https://")):
        return None
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the scheme was checked
    begun = SYSTEM_CLOCK.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=limit):  # noqa: S310 - as above
            return SYSTEM_CLOCK.monotonic() - begun
    except (urllib.error.URLError, OSError, ValueError):
        return None
