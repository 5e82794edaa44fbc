"""Inside the host process only: plugins as processes, and who keeps them running.

    call --PluginHost--> Supervisor --Entrance--> LocalInstance    a process
                    |--> Debugging ---Entrance--> DebugInstance    a connection, or another host's
                    +--> Serverless --Entrance--> Invocation       a request to a function

An ``Entrance`` says whose turn it is, a ``Supervisor`` starts and restarts one plugin, an
``Instance`` is one that runs (the contract is in ``instance``), and its ``SessionTable`` holds the
calls that it serves.
"""

from typing import Final

from tidegate.hosts.debugging import Debugging, DebugInstance
from tidegate.hosts.host import PluginHost
from tidegate.hosts.instance import Instance, State
from tidegate.hosts.local import LocalInstance
from tidegate.hosts.serverless import Serverless
from tidegate.hosts.supervisor import Phase, Supervisor

#: What follows the contract; written down so that the type checker holds both to all of it.
INSTANCES: Final[tuple[type[Instance], ...]] = (LocalInstance, DebugInstance)

__all__ = [
    "INSTANCES",
    "Debugging",
    "Instance",
    "LocalInstance",
    "Phase",
    "PluginHost",
    "Serverless",
    "State",
    "Supervisor",
]
