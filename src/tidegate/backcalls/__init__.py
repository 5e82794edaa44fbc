"""What a plugin may ask of us while it serves a call: a back-call (spec/plugin/05).

======================  ===========================================================
kinds                   every type: permission, place at Dify, required fields
target                  the seam to the plugin's process, and to whoever answers
gate, desk              admission by the manifest; turns, greenlets, always an end
tally                   how many there were, for /metrics
dify, inner_client      Dify's inner API as the one who answers
plugin_storage          storage: answered here, whoever answers the rest
endpoint_secrets        secrets of endpoint settings, encrypted by Dify or here
vault, keyring          the local key; credentials that it seals
wiring                  whether Dify takes our key, for doctor
======================  ===========================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.backcalls.desk import Desk
from tidegate.backcalls.kinds import KINDS, Kind
from tidegate.backcalls.tally import TALLY
from tidegate.backcalls.target import Answer, BackCall, Caller, Responder, Session, Target
from tidegate.backcalls.unanswered import Unanswered, needs_dify

if TYPE_CHECKING:
    from tidegate.settings import Settings

__all__ = [
    "KINDS",
    "TALLY",
    "Answer",
    "BackCall",
    "Caller",
    "Desk",
    "Kind",
    "Responder",
    "Session",
    "Target",
    "Unanswered",
    "needs_dify",
    "open_target",
]


def open_target(
    settings: Settings, *, storage: Responder | None = None, own: Responder | None = None
) -> Desk:
    """The target that the settings ask for. Called by the host's entry file.

    ``storage`` is the plugin storage, ``own`` answers where TIDEGATE_BACKCALLS is ``self``; what
    is not given is refused. StartRefused when ``dify`` is asked for without its address.
    """
    nobody = Unanswered(settings.backcalls)
    others = own or nobody
    if settings.backcalls == "dify":
        # loads ssl: not for a process that only looks at the table
        from tidegate.backcalls.dify import DifyResponder
        from tidegate.backcalls.inner_client import InnerClient

        others = DifyResponder(InnerClient(settings))
    return Desk(settings, storage or nobody, others)
