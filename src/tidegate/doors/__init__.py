"""Doors: thin mappings from a protocol of the outside world onto calls.

``routes`` says what a door is made of, ``binding`` and ``envelope`` serve those that speak
Dify's JSON; ``dify`` is the door of Dify's API server.
"""

from tidegate.doors.route_table import RouteTable
from tidegate.doors.routes import Request, Response, Route, StreamResponse
from tidegate.doors.services import Services

__all__ = ["Request", "Response", "Route", "RouteTable", "Services", "StreamResponse"]
