"""The door that Dify's API server uses: the routes of its plugin daemon, byte for byte.

:func:`dify_routes` gives the rows (``rows``); ``api`` serves them.

* ``packages`` - uploads, declarations, readmes, icons
* ``management`` - installing and its tasks
* ``lists``, ``capabilities`` - what a tenant has, as ready bytes
* ``endpoints``, ``webhook`` - hooks, and who knocks at them
* ``dispatch`` - calls of plugins, one row of ``actions`` each
* ``debugging``, ``transactions``, ``administration`` - rows that settings ask for
"""

from tidegate.doors.dify.action import Action
from tidegate.doors.dify.actions import ACTIONS
from tidegate.doors.dify.dispatch import Dispatcher
from tidegate.doors.dify.rows import dify_routes

__all__ = ["ACTIONS", "Action", "Dispatcher", "dify_routes"]
