"""The generation: a number that grows with every change of installations and declarations.

Bumped in the transaction of the change itself, as its last statement: whoever reads generation
*n* sees every change up to *n*. Catalogues kept in memory compare it (contract.md section 5).
"""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from tidegate.storage.tables import generation


def bump(conn: Connection) -> int:
    """The new generation. Called by the query modules, last in their transaction."""
    statement = (
        # As an UPDATE it is a lock as well: two changes commit one after the other, and their
        # numbers in that order.
        update(generation)
        .where(generation.c.id == 1)
        .values(value=generation.c.value + 1)
        .returning(generation.c.value)
    )
    return int(conn.execute(statement).scalar_one())


def current(conn: Connection) -> int:
    """The generation that this transaction sees."""
    return int(conn.execute(select(generation.c.value).where(generation.c.id == 1)).scalar_one())
