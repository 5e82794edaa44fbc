"""Python environments of plugins: interpreter, resolution and build by uv, shared by closure.

``Environments.ensure`` is the room's door: it turns an extracted package into an environment.
``child`` is how the host starts any process; ``hosts`` uses it for plugins as well.
"""

from tidegate.environments.builds import Environment, Environments, Progress
from tidegate.environments.child import Child, Exit, ReadEnd, children, spawn
from tidegate.environments.tool import proxies

__all__ = [
    "Child",
    "Environment",
    "Environments",
    "Exit",
    "Progress",
    "ReadEnd",
    "children",
    "proxies",
    "spawn",
]
