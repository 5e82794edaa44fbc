"""Boot of the four roles: home and keys, launcher, patches, guards, fingerprint, drain, `up`.

And what any process does with its connections: the HTTP that it asks of others, TCP's keep-alive.

What other rooms use is re-exported here; it imports nothing that a later patch would miss.
"""

from __future__ import annotations

from tidegate.runtime.drain import Drain
from tidegate.runtime.home import link_key, link_socket, prepare_home
from tidegate.runtime.launcher import command_for, launch

__all__ = ["Drain", "command_for", "launch", "link_key", "link_socket", "prepare_home"]
