"""What a plugin may ask of us while it serves a call: a back-call (spec/plugin/05).

``Target`` is who answers; a host has one. ``Unanswered`` answers everything with an error at
once, which is what a host does that has neither Dify nor models of its own.
"""

from tidegate.backcalls.target import Answer, BackCall, Target
from tidegate.backcalls.unanswered import Unanswered
from tidegate.settings import Settings

__all__ = ["Answer", "BackCall", "Target", "Unanswered", "open_target"]


def open_target(settings: Settings) -> Target:
    """The target that the settings ask for. Called by the host's entry file."""
    return Unanswered(settings.backcalls)
