"""The one gate: may this plugin ask for that? (spec/plugin/05 section 2)

Decided by the manifest alone, for a session that is open and is not one of a model. The texts are
the reference's; the type of the error goes with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.backcalls.kinds import KINDS, Kind
from tidegate.backcalls.target import BackCall, Session
from tidegate.errors import BackCallInvalid, PermissionDenied, SessionOver


def admit(call: BackCall) -> tuple[Kind, Session]:
    """The row of ``call`` and its session; PermissionDenied, SessionOver or BackCallInvalid."""
    session = call.session
    if session is None:
        raise SessionOver("the session of this back-call is over, or is none of this plugin's")
    if session.type == "model":
        raise PermissionDenied("you can not invoke dify from model", permission="model")
    kind = KINDS.get(call.type)
    if kind is None:
        raise BackCallInvalid(f"unsupported invoke type: {call.type[:100]}")
    if not _granted(kind, call.caller.permission):
        raise PermissionDenied(
            f"permission denied, you need to enable {kind.access} access in plugin manifest",
            permission=".".join(filter(None, kind.permission or ())),
        )
    return kind, session


def _granted(kind: Kind, permission: Mapping[str, Any]) -> bool:
    if kind.permission is None:
        return True
    section, switch = kind.permission
    given = permission.get(section) or {}
    # Exactly true: a manifest is a plugin's text, and the text "false" is a true value.
    return given.get("enabled") is True and (not switch or given.get(switch) is True)
