"""The consumer's side of a call: opening it, its stream, its output rules (docs/streams.md).

One greenlet consumes a call, from its first chunk to its end; whatever belongs to the call is
touched by that greenlet only. The link's reader only hands over bytes.
"""

from tidegate.calls.calls import Calls, PluginCall
from tidegate.calls.counters import COUNTERS
from tidegate.calls.failures import PluginFailed, StreamMisused, failure_from
from tidegate.calls.output_rules import OutputRules, RuleBook
from tidegate.calls.stream import Stream

__all__ = [
    "COUNTERS",
    "Calls",
    "OutputRules",
    "PluginCall",
    "PluginFailed",
    "RuleBook",
    "Stream",
    "StreamMisused",
    "failure_from",
]
