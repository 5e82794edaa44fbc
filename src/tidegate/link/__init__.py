"""The connection between roles: many calls over one socket, in frames (docs/adr/003).

``server`` is the host's end, ``client`` that of api and worker. Neither knows anything of
plugins: the server hands each opened call to a :class:`Handler`, the client hands what comes
back to the call's :class:`Sink`.
"""

from tidegate.link.client import ClientCall, LinkClient, Sink
from tidegate.link.peer import Handler
from tidegate.link.server import LinkServer
from tidegate.link.server_call import ServerCall, flush, wait_writable

__all__ = [
    "ClientCall",
    "Handler",
    "LinkClient",
    "LinkServer",
    "ServerCall",
    "Sink",
    "flush",
    "wait_writable",
]
