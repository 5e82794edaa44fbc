"""Rows and blobs: SQLite and PostgreSQL behind one face, a folder for what is large.

* :class:`Database`, :func:`migrate` - connections, and the tables they need
* query modules, plain functions that take a connection first and return frozen rows:
  ``declarations``, ``installations``, ``capabilities``, ``endpoints``, ``readmes``,
  ``install_tasks``, ``job_rows``, ``generation``
* ``blobs`` - packages, markers of installed ones, icons
* :func:`redis_client` - the Redis of the settings, where there is one

SQL stands in this room only. ``Database`` is loaded at first use: a supervisor or a command that
only migrates does not pay for SQLAlchemy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tidegate.storage.migration import is_current, migrate

if TYPE_CHECKING:
    from tidegate.storage.database import Database
    from tidegate.storage.redis_server import redis_client, redis_key, redis_trouble

__all__ = ["Database", "is_current", "migrate", "redis_client", "redis_key", "redis_trouble"]


def __getattr__(name: str) -> Any:
    if name == "Database":
        from tidegate.storage.database import Database

        return Database
    if name.startswith("redis_") and name in __all__:
        from tidegate.storage import redis_server

        return getattr(redis_server, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
