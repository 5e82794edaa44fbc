"""How many tenants use a version: the table ``plugins``, one row per version in use.

``refers`` is the reference daemon's counter and is kept right for it; what we decide by is
whether an installation of the version is left, because old databases have wrong counters.
"""

from __future__ import annotations

from sqlalchemy import Connection, exists, select, update
from sqlalchemy import delete as delete_from

from tidegate.clock import SYSTEM_CLOCK
from tidegate.ids import plugin_id_of, row_id
from tidegate.storage.dialects import insert
from tidegate.storage.tables import (
    debug_sessions,
    plugin_declarations,
    plugin_installations,
    plugin_readme_records,
    plugins,
    serverless_runtimes,
)


def add(
    conn: Connection, identifier: str, *, install_type: str, source: str, manifest_type: str = ""
) -> None:
    """One tenant more. Locks the row until the transaction ends; made when it is missing."""
    now = SYSTEM_CLOCK.now()
    statement = insert(conn, plugins).values(
        id=str(row_id()),
        created_at=now,
        updated_at=now,
        plugin_unique_identifier=identifier,
        plugin_id=plugin_id_of(identifier),
        refers=1,
        install_type=install_type,
        manifest_type=manifest_type,
        remote_declaration="{}",
        source=source,
    )
    conn.execute(
        statement.on_conflict_do_update(
            index_elements=[plugins.c.plugin_unique_identifier],
            set_={"refers": plugins.c.refers + 1, "updated_at": now},
        )
    )


def remove(conn: Connection, identifier: str) -> bool:
    """One tenant less, after its installation is gone; True when it was the last.

    Then the rows of the version go: plugin, declaration, runtime, readmes (D-44). A missing plugin
    row is tolerated (old databases).
    """
    _subtract(conn, identifier)
    return _forget_unused(conn, identifier)


def switch(
    conn: Connection, old: str, new: str, *, source: str, install_type: str = "local"
) -> bool:
    """A tenant moved from ``old`` to ``new``; True when it was the last one on ``old``."""
    # in the order of identifiers: an upgrade and a downgrade at once must not wait for each other
    for identifier in sorted((old, new)):
        if identifier == new:
            add(conn, new, install_type=install_type, source=source, manifest_type="plugin")
        else:
            _subtract(conn, old)
    return _forget_unused(conn, old)


def is_used(conn: Connection, identifier: str) -> bool:
    """Whether any tenant has this version, if only behind one that is being debugged."""
    installed = exists().where(plugin_installations.c.plugin_unique_identifier == identifier)
    # The installed version comes back when the developer leaves: until then nobody has it, and it
    # must not be collected.
    shadowed = exists().where(debug_sessions.c.shadowed_identifier == identifier)
    return bool(conn.execute(select(installed | shadowed)).scalar())


def forget_unused(conn: Connection) -> list[str]:
    """Take away the rows of versions in the table that nobody has; which they were.

    Their counters were wrong, or a daemon died in the middle. Called by the reconciler.
    """
    found = conn.execute(select(plugins.c.plugin_unique_identifier)).scalars()
    return [one for one in map(str, found) if _forget_unused(conn, one)]


def _subtract(conn: Connection, identifier: str) -> None:
    conn.execute(
        update(plugins)
        .where(plugins.c.plugin_unique_identifier == identifier)
        .values(refers=plugins.c.refers - 1, updated_at=SYSTEM_CLOCK.now())
    )


def _forget_unused(conn: Connection, identifier: str) -> bool:
    if is_used(conn, identifier):
        return False
    # Only rows. Package and icons are not the database's, and are collected from the store by
    # their own rules.
    for table in (plugins, plugin_declarations, serverless_runtimes, plugin_readme_records):
        conn.execute(delete_from(table).where(table.c.plugin_unique_identifier == identifier))
    return True
