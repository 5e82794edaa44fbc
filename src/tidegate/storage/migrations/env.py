"""Run by Alembic inside the transaction that ``storage.migrate`` began and locked."""

from __future__ import annotations

from alembic import context

from tidegate.storage.migrations import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    transactional_ddl=True,  # on SQLite too: our transaction was begun by ourselves
)
with context.begin_transaction():
    context.run_migrations()
