"""Inside the host process only: plugins as processes, and who keeps them running.

``PluginHost`` takes calls from the link; a ``Supervisor`` per plugin starts and restarts it; an
``Instance`` is one running process (``LocalInstance``), the contract is in ``instance``.
"""

from tidegate.hosts.debugging import Debugging
from tidegate.hosts.host import PluginHost
from tidegate.hosts.instance import Instance, State
from tidegate.hosts.local import LocalInstance
from tidegate.hosts.serverless import Serverless
from tidegate.hosts.supervisor import Phase, Supervisor

__all__ = [
    "Debugging",
    "Instance",
    "LocalInstance",
    "Phase",
    "PluginHost",
    "Serverless",
    "State",
    "Supervisor",
]
