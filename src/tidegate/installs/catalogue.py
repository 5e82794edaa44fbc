"""Who has which plugin, in memory: what doors ask on each call, without a round trip.

Entries are filled from the database at first use and dropped all at once when the generation
grows: by a notice over the link, by this process's own change, or because this process looked by
itself (at least once a second while it is asked; contract: freshness of lists and declarations).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, final

import gevent
import msgspec
from gevent.event import Event

from tidegate.errors import StorageUnavailable
from tidegate.storage import Database, declarations, generation, installations
from tidegate.storage.installations import Installation
from tidegate.telemetry.logs import get_log

log = get_log("installs")

LOOK_EVERY: Final = 0.8
"""Seconds between two looks at the generation."""

REST_AFTER: Final = 10.0
"""Seconds without a question after which nobody looks any more; the next question does."""

TRUSTED: Final = 1.0
"""Seconds for which the database is not asked again once it could not be, where an older answer is
known: calls must not queue up at a server that does not answer."""

MOST: Final = 20_000
"""Entries kept, unknown plugins among them; over that it begins anew."""


MOST_BYTES: Final = 128 << 20
"""Bytes of ready answers that are kept."""


@final
@dataclass(frozen=True, slots=True)
class Known:
    """A tenant's plugin as calls need it. ``declaration`` must not be changed."""

    identifier: str
    declaration: dict[str, Any]
    row: Installation


@final
class Catalogue:
    """The catalogue of one process. Close it at the end: it has a greenlet while it is asked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._installed: dict[tuple[str, str], Known | None] = {}
        self._declarations: dict[str, dict[str, Any] | None] = {}
        self._kept: dict[tuple[str | int, ...], Any] = {}
        self._kept_bytes = 0
        self._last: dict[tuple[str, str], Known] = {}
        self._down_until = 0.0
        self._generation = -1
        self._epoch = 0
        self._fresh = False
        self._asked = False
        self._watcher: gevent.Greenlet | None = None
        self._closing = Event()

    def installation(self, tenant: str, plugin_id: str) -> Known | None:
        """The tenant's installation of ``author/name``; None when it has none.

        A dictionary look-up once it is known. While the database cannot be asked, what was known
        last goes on being served, although it may have changed since: calls outlive a restart of
        the database (T-H3). StorageUnavailable when nothing was known.
        """
        self._asked = True
        # All of the hot path: no clock is read, and no lock is needed where nothing switches.
        if self._fresh:
            try:
                return self._installed[tenant, plugin_id]
            except KeyError:
                pass
        return self._load_installation(tenant, plugin_id)

    def declaration(self, identifier: str) -> dict[str, Any] | None:
        """The declaration of an uploaded version; None when it is unknown."""
        self._asked = True
        if self._fresh:
            try:
                return self._declarations[identifier]
            except KeyError:
                pass
        return self._load_declaration(identifier)

    def remember[T](self, key: tuple[str | int, ...], make: Callable[[], T]) -> T:
        """What ``make`` gives, until anything changes: ready bytes of lists, rows of endpoints.

        Bytes count by their length; beyond MOST_BYTES in all the oldest go. None is not kept:
        whoever asks for what is not there must not push out what is. Nor is an answer of which
        something changed while it was made.
        """
        self._asked = True
        if self._fresh and key in self._kept:
            kept: T = self._kept[key]
            return kept
        self._watch()
        epoch = self._epoch
        made = make()
        # While it was made something changed: it may be older than the change, and would stay
        # until the next one.
        if epoch == self._epoch and made is not None:
            self._keep(key, made)
        return made

    def invalidate(self, generation: int) -> None:
        """The generation is at least this one now. Called for notices and after own changes."""
        if generation > self._generation:
            self._generation = generation
            self._forget()

    def heard(self, notice: dict[str, Any]) -> None:
        """A notice of the host, ``{"generation": n}``; any other says nothing about this."""
        generation = notice.get("generation")
        if isinstance(generation, int):
            self.invalidate(generation)

    def close(self) -> None:
        """Stop looking. The catalogue still answers, from the database."""
        self._closing.set()
        self._fresh = False
        if self._watcher is not None:
            self._watcher.join()

    # ------------------------------------------------------------------ filling

    def _load_installation(self, tenant: str, plugin_id: str) -> Known | None:
        last = self._last.get((tenant, plugin_id))
        # One question in a second finds out that the database is back; each of the others would
        # wait for its time-out in front of a person.
        if last is not None and time.monotonic() < self._down_until:
            return last
        try:
            return self._ask_for_installation(tenant, plugin_id)
        except StorageUnavailable as error:
            if last is None:
                raise
            self._down_until = time.monotonic() + TRUSTED
            log.warning("served by what was known", plugin=plugin_id, error=error.message)
            return last

    def _ask_for_installation(self, tenant: str, plugin_id: str) -> Known | None:
        self._watch()
        epoch = self._epoch
        with self._database.read() as conn:
            row = installations.find(conn, tenant, plugin_id)
            text = declarations.get(conn, row.identifier) if row is not None else None
        known = None
        if row is not None:
            declaration = msgspec.json.decode(text.text) if text is not None else {}
            known = Known(row.identifier, declaration, row)
        # Outside the epochs, for the one case that the database is away when a notice has emptied
        # the rest.
        self._remember_last((tenant, plugin_id), known)
        if epoch == self._epoch:
            self._make_room()
            self._installed[tenant, plugin_id] = known
        return known

    def _remember_last(self, key: tuple[str, str], known: Known | None) -> None:
        if known is None:
            # It was uninstalled: an outage must not bring it back.
            self._last.pop(key, None)
            return
        if len(self._last) >= MOST:
            self._last.clear()
        self._last[key] = known

    def _load_declaration(self, identifier: str) -> dict[str, Any] | None:
        self._watch()
        epoch = self._epoch
        with self._database.read() as conn:
            found = declarations.get(conn, identifier)
        declaration = msgspec.json.decode(found.text) if found is not None else None
        if epoch == self._epoch:
            self._make_room()
            self._declarations[identifier] = declaration
        return declaration

    def _keep(self, key: tuple[str | int, ...], made: object) -> None:
        self._drop(key)
        self._kept[key] = made
        self._kept_bytes += _size(made)
        while self._kept_bytes > MOST_BYTES or len(self._kept) > MOST:
            # The oldest first: dictionaries keep the order of insertion, and no look-up has to
            # write.
            self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple[str | int, ...]) -> None:
        if key in self._kept:
            self._kept_bytes -= _size(self._kept.pop(key))

    def _make_room(self) -> None:
        # Everything at once: which of the names nobody will ask for again (a scan with made-up
        # plugin ids) cannot be told.
        if len(self._installed) + len(self._declarations) >= MOST:
            self._forget()

    def _forget(self) -> None:
        """An answer that was being loaded meanwhile is not kept: it may be older than this."""
        self._epoch += 1
        self._installed.clear()
        self._declarations.clear()
        self._kept.clear()
        self._kept_bytes = 0

    # ------------------------------------------------------------------ freshness

    def _watch(self) -> None:
        """Look now, and from now on in the background, unless that happens already."""
        if self._fresh or self._closing.is_set():
            return
        self._look()
        if self._watcher is None or self._watcher.ready():
            self._watcher = gevent.spawn(self._keep_looking)
        self._fresh = True

    def _keep_looking(self) -> None:
        try:
            self._look_while_asked()
        finally:
            # However it ended: with nobody looking, what is kept here must not count as fresh. The
            # next question looks by itself and starts anew.
            self._fresh = False

    def _look_while_asked(self) -> None:
        rests_at = time.monotonic() + REST_AFTER
        while not self._closing.wait(LOOK_EVERY):
            if self._asked:
                self._asked = False
                rests_at = time.monotonic() + REST_AFTER
            if time.monotonic() > rests_at:
                break
            try:
                self._look()
            except StorageUnavailable as error:
                # what is known goes on being served: a call needs no database
                log.warning("generation unknown", error=error.message)

    def _look(self) -> None:
        with self._database.read() as conn:
            now = generation.current(conn)
        if now != self._generation:  # smaller: the database was put back
            self._generation = now
            self._forget()


def _size(made: object) -> int:
    return len(made) if isinstance(made, bytes) else 1024
