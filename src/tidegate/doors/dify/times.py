"""Times of rows as answers show them: in the zone of SERVER_TZ (spec/http/01 section 1.6).

Rows hold UTC; the zone is the operator's wish for whoever reads an answer, and changes nothing
for Dify, which reads the offset.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol, final

from tidegate.settings import Settings
from tidegate.telemetry.logs import zone_of


class Dated(Protocol):
    """A row that knows when it was made and last changed."""

    @property
    def created_at(self) -> datetime:
        """When it was made."""

    @property
    def updated_at(self) -> datetime:
        """When it was changed last."""


@final
class Times:
    """Made once per door that shows rows."""

    def __init__(self, settings: Settings) -> None:
        self._zone = zone_of(settings)

    def local(self, moment: datetime) -> datetime:
        """The same moment, to be written with the zone's offset."""
        return moment.astimezone(self._zone)

    def of(self, row: Dated) -> dict[str, datetime]:
        """The two times that every row is shown with."""
        return {
            "created_at": self.local(row.created_at),
            "updated_at": self.local(row.updated_at),
        }
