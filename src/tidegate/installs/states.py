"""The life of an installation (architecture: the life of an installation).

    absent -> uploaded -> resolving -> building -> probing -> installed
                              any of them -> failed
    installed -> upgrading -> installed      installed -> removing -> absent

Each arrow is one transaction of one job (:mod:`tidegate.installs.run`). A job that was killed and
begins again goes back to *resolving*: what was built already is found there and kept.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from tidegate.errors import IllegalTransition


class InstallState(Enum):
    """Where an installation stands; the value is what the job's row says."""

    ABSENT = "absent"
    UPLOADED = "uploaded"
    RESOLVING = "resolving"
    BUILDING = "building"
    PROBING = "probing"
    UPGRADING = "upgrading"
    INSTALLED = "installed"
    REMOVING = "removing"
    FAILED = "failed"

    @classmethod
    def of(cls, text: str) -> InstallState:
        """The state that a job's row is in; a new row is *uploaded*."""
        return cls(text) if text else cls.UPLOADED


_S = InstallState

TRANSITIONS: Final[dict[InstallState, frozenset[InstallState]]] = {
    _S.ABSENT: frozenset({_S.UPLOADED}),
    _S.UPLOADED: frozenset({_S.RESOLVING, _S.REMOVING, _S.INSTALLED, _S.FAILED}),
    _S.RESOLVING: frozenset({_S.RESOLVING, _S.BUILDING, _S.INSTALLED, _S.FAILED}),
    _S.BUILDING: frozenset({_S.RESOLVING, _S.PROBING, _S.INSTALLED, _S.FAILED}),
    _S.PROBING: frozenset({_S.RESOLVING, _S.INSTALLED, _S.UPGRADING, _S.FAILED}),
    _S.UPGRADING: frozenset({_S.RESOLVING, _S.INSTALLED, _S.FAILED}),
    _S.INSTALLED: frozenset({_S.UPGRADING, _S.REMOVING}),
    _S.REMOVING: frozenset({_S.REMOVING, _S.ABSENT, _S.INSTALLED, _S.FAILED}),
    _S.FAILED: frozenset({_S.UPLOADED, _S.ABSENT}),
}
"""Every step there is. Straight to *installed* before *probing*: the tenant has it already;
*removing* -> *installed*: somebody uses it again, it stays."""

BUILD_STEPS: Final = (_S.RESOLVING, _S.BUILDING, _S.PROBING)
"""What the host does, in its order."""


def check(before: InstallState, after: InstallState) -> None:
    """IllegalTransition unless the table has that step."""
    if after not in TRANSITIONS[before]:
        raise IllegalTransition(
            f"an installation cannot go from {before.value} to {after.value}",
            before=before.value,
            after=after.value,
        )


def path_to(before: InstallState, target: InstallState) -> tuple[InstallState, ...]:
    """The build steps after ``before`` up to ``target``: none is skipped, none taken twice."""
    if before not in BUILD_STEPS or target not in BUILD_STEPS:
        return ()
    return BUILD_STEPS[BUILD_STEPS.index(before) + 1 : BUILD_STEPS.index(target) + 1]
