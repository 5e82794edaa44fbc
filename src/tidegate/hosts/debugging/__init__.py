"""Plugins that run at their developer's, connected over TCP (spec/plugin/02).

developer's process --TCP--> Connection: registration, then the lines of wire/session
                                 |
link --call--> Debugging --> DebugInstance of that connection
                   |
               Directory: which are connected, and the rows that say so to everybody
"""

from tidegate.hosts.debugging.admission import Limits
from tidegate.hosts.debugging.instance import DebugInstance
from tidegate.hosts.debugging.listener import Debugging

__all__ = ["DebugInstance", "Debugging", "Limits"]
