"""Column types that mean the same on both databases."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, final

from sqlalchemy import CHAR, DateTime, Dialect
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeDecorator, TypeEngine

from tidegate.errors import BadRequest


@final
class RowId(TypeDecorator[str]):
    """A UUID as canonical text. PostgreSQL: ``uuid``; SQLite: 36 characters, which sort alike."""

    impl = CHAR(36)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.UUID(as_uuid=False))
        return dialect.type_descriptor(CHAR(36))

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        # Always the canonical form: SQLite compares text, and callers may leave the dashes out.
        return None if value is None else str(uuid.UUID(str(value)))


@final
class Moment(TypeDecorator[datetime]):
    """An aware UTC time with microseconds. PostgreSQL: ``timestamptz``; SQLite: text in UTC."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(DateTime(timezone=dialect.name == "postgresql"))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        # Before the zone is dropped for SQLite: times are compared as text there.
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def tenant_key(text: str) -> str:
    """The tenant as the database knows it; BadRequest for what is no UUID (D-67)."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise BadRequest(f"tenant id is not a UUID: {text[:100]}") from None


def row_key(text: str) -> str | None:
    """A row id from outside, or None when it can be no row's id (D-19)."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None
