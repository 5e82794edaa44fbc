"""Alembic's scripts. ``HEAD`` is the newest revision; revisions are numbers that sort as text.

Each migration is expand, migrate or contract, never two of them at once, so that the version of
Tidegate before it still runs on the new tables.
"""

HEAD = "0006"
VERSION_TABLE = "tidegate_schema"
