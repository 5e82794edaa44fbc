"""Python environments of plugins: interpreter, resolution and build by uv, shared by closure.

``Environments.ensure`` is the room's door: it turns an extracted package into an environment.
``spawning`` is how the host starts any process, ``child`` how it watches and ends it; ``hosts``
uses both for plugins as well.
"""

from tidegate.environments.builds import Environment, Environments
from tidegate.environments.child import (
    Child,
    Exit,
    ReadEnd,
    children,
    discard,
    dividing,
    keepers,
)
from tidegate.environments.installing import Progress
from tidegate.environments.spawning import spawn
from tidegate.environments.syscalls import program as filter_program
from tidegate.environments.tool import proxies
from tidegate.environments.walls import Confine, Walls, give

__all__ = [
    "Child",
    "Confine",
    "Environment",
    "Environments",
    "Exit",
    "Progress",
    "ReadEnd",
    "Walls",
    "children",
    "discard",
    "dividing",
    "filter_program",
    "give",
    "keepers",
    "proxies",
    "spawn",
]
