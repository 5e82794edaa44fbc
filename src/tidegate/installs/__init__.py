"""Who has which plugin, and how that changes: upload, install, upgrade, uninstall.

Doors use :class:`Installer` (changes, answers at once) and :class:`Catalogue` (look-ups in
memory). The worker uses :class:`JobRunner`, which carries the jobs out as explicit state machines
(``states``, ``run``) and drives the host by control calls (:class:`HostControl`).
"""

from tidegate.installs.bundled import Bundled
from tidegate.installs.catalogue import Catalogue, Known
from tidegate.installs.host_control import HostControl, LinkedHost
from tidegate.installs.installer import InstallAnswer, Installer
from tidegate.installs.runner import JobRunner
from tidegate.installs.states import TRANSITIONS, InstallState
from tidegate.installs.stored import StoredPackages
from tidegate.installs.uploads import Uploaded

__all__ = [
    "TRANSITIONS",
    "Bundled",
    "Catalogue",
    "HostControl",
    "InstallAnswer",
    "InstallState",
    "Installer",
    "JobRunner",
    "Known",
    "LinkedHost",
    "StoredPackages",
    "Uploaded",
]
