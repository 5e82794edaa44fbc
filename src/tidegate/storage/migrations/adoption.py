"""Bring tables up to a description, whatever is there already.

A reference daemon's database comes in many ages: columns that were dropped from its models but
not from the table, missing indexes, duplicated rows where a unique index was added later. Every
row survives: duplicates that a unique index forbids are moved to ``tidegate_set_aside``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from alembic import op
from sqlalchemy import (
    Column,
    Connection,
    Index,
    Inspector,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    inspect,
    select,
)

from tidegate.clock import SYSTEM_CLOCK
from tidegate.ids import row_id


def adopt(conn: Connection, metadata: MetaData, set_aside: Table) -> None:
    """Create what is missing of ``metadata``; complete the tables that are there."""
    inspector = inspect(conn)
    present = set(inspector.get_table_names())
    metadata.create_all(conn)  # leaves existing tables alone
    for table in metadata.sorted_tables:
        if table.name in present:
            _complete(conn, inspector, table, set_aside)


def _complete(conn: Connection, inspector: Inspector, table: Table, set_aside: Table) -> None:
    present = {column["name"]: column for column in inspector.get_columns(table.name)}
    _add_columns(table, present)
    # A newer daemon's NOT NULL column, unknown here, would refuse every row that we write.
    _relax_strangers(table, present)
    if conn.dialect.name == "postgresql":  # SQLite enforces no length
        _widen(table, present)
    unique = {*_unique_sets(inspector, table.name)}
    for name, columns in _wanted_unique(table):
        if frozenset(columns) not in unique:
            move_duplicates(conn, table, columns, set_aside)
            op.create_index(name, table.name, list(columns), unique=True)
    _add_indexes(inspector, table)


def _add_columns(table: Table, present: dict[str, Any]) -> None:
    for column in table.columns:
        if column.name not in present:
            # nullable, whatever the model says: the rows that are there have no value
            default: Any = column.server_default
            op.add_column(
                table.name,
                Column(column.name, column.type, server_default=default and default.arg),
            )


def _relax_strangers(table: Table, present: dict[str, Any]) -> None:
    """Columns that we do not know must not refuse our rows."""
    for name, column in present.items():
        if name not in table.columns and not column["nullable"] and column["default"] is None:
            with op.batch_alter_table(table.name) as batch:
                batch.alter_column(name, existing_type=column["type"], nullable=True)


def _widen(table: Table, present: dict[str, Any]) -> None:
    for column in table.columns:
        before = present[column.name]["type"] if column.name in present else None
        if not isinstance(before, String) or not isinstance(column.type, String):
            continue
        # Wider only: narrowing could cut what is there.
        if before.length and (not column.type.length or before.length < column.type.length):
            op.alter_column(table.name, column.name, type_=column.type)


def _add_indexes(inspector: Inspector, table: Table) -> None:
    present = {tuple(index["column_names"]) for index in inspector.get_indexes(table.name)}
    for index in table.indexes:
        columns = tuple(column.name for column in index.columns)
        if not index.unique and columns not in present:
            op.create_index(index.name, table.name, list(columns))


def _unique_sets(inspector: Inspector, table: str) -> Iterator[frozenset[str | None]]:
    for index in inspector.get_indexes(table):
        if index["unique"]:
            yield frozenset(index["column_names"])
    for constraint in inspector.get_unique_constraints(table):
        yield frozenset(constraint["column_names"])


def _wanted_unique(table: Table) -> Iterator[tuple[str, tuple[str, ...]]]:
    constraints: Iterable[Any] = [*table.indexes, *table.constraints]
    for one in constraints:
        if isinstance(one, UniqueConstraint) or (isinstance(one, Index) and one.unique):
            yield str(one.name), tuple(column.name for column in one.columns)


def move_duplicates(
    conn: Connection, table: Table, columns: tuple[str, ...], set_aside: Table
) -> None:
    """Keep the oldest row of each key, move the others."""
    seen = set()
    # With its unknown columns, too: what is set aside is kept whole.
    everything = Table(table.name, MetaData(), autoload_with=conn)
    rows = conn.execute(select(everything).order_by(everything.c.created_at, everything.c.id))
    for row in rows.mappings().all():
        key = tuple(row[column] for column in columns)
        # NULLs are never equal for a unique index.
        if None in key or key not in seen:
            seen.add(key)
            continue
        reason = f"another row has the same {', '.join(columns)}"
        conn.execute(set_aside.insert().values(**_kept(table.name, reason, dict(row))))
        conn.execute(everything.delete().where(everything.c.id == row["id"]))


def _kept(table: str, reason: str, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": str(row_id()),
        "created_at": SYSTEM_CLOCK.now(),
        "table_name": table,
        "reason": reason,
        "row": json.dumps(row, default=str),
    }
