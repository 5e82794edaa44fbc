"""The embedded broker's file: messages and bindings in one SQLite database.

| table | a row is |
|---|---|
| ``message`` | one message; ``owner`` was handed it and has not answered yet |
| ``binding`` | routing key to queue; ``owner`` where the queue dies with a process |

A message stays until it is acknowledged. Rows whose owner is dead (see ``owners``) are free
again, at their old place in the queue.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

from tidegate.jobs.owners import Owners
from tidegate.storage.busy import patiently
from tidegate.telemetry.logs import get_log

log = get_log("jobs")

LOCK_LIMIT = 10.0
"""Seconds after which a file that stays locked is an error."""

BURY_EVERY = 1.0
"""Seconds between two looks for dead owners and for queues that nobody reads."""

_PRAGMAS = (
    "busy_timeout=0",
    "journal_mode=wal",
    "synchronous=normal",
    f"journal_size_limit={16 << 20}",
    "wal_autocheckpoint=200",
)
_SCHEMA = (
    "create table if not exists message(id integer primary key autoincrement, queue text not null,"
    " tag text not null unique, rank integer not null, expires_at real, owner text,"
    " returned integer not null default 0, body text not null)",
    "create index if not exists message_next on message(queue, owner, rank, id)",
    "create index if not exists message_owner on message(owner) where owner is not null",
    "create table if not exists binding(exchange text not null, routing_key text not null,"
    " pattern text not null, queue text not null, owner text,"
    " primary key(exchange, routing_key, pattern, queue))",
)
_NEXT = (
    "select id from message where queue=:queue and owner is null"
    " and (expires_at is null or expires_at>:now) order by rank, id limit 1"
)
_TAKE = f"update message set owner=:me where id=({_NEXT}) returning body, returned"  # noqa: S608
_FORGET = f"delete from message where id=({_NEXT}) returning body, returned"  # noqa: S608
_FREE = "update message set owner=null, returned=returned+1 where "


@final
@dataclass(frozen=True, slots=True)
class Taken:
    """A message that was handed out. ``returned``: it had been handed out before."""

    body: str
    returned: bool


@final
class QueueFile:
    """One broker file in one process. Made by :meth:`at`; lives as long as the process."""

    _open: ClassVar[dict[Path, QueueFile]] = {}
    _inherited: ClassVar[list[QueueFile]] = []

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Autocommit: one statement is one transaction, so that no greenlet can hold one open over
        # a switch.
        self._db = sqlite3.connect(path, isolation_level=None, timeout=0)
        for pragma in _PRAGMAS:
            self._do("pragma " + pragma)
        for statement in _SCHEMA:
            self._do(statement)
        self._owners = Owners(path.with_name(path.name + ".d"))
        self._next_look = 0.0
        self._unread: dict[str, float] = {}

    @classmethod
    def at(cls, path: Path) -> QueueFile:
        """The file at ``path``, opened once per process; sqlite3.Error when it cannot be."""
        # One file by two names would be two owners in one process, each thinking the other lives.
        path = path.resolve()
        known = cls._open.get(path)
        if known is None:
            made = cls(path)
            known = cls._open.setdefault(path, made)
            # Opening waits for a locked file, and another greenlet may have been faster.
            if known is not made:
                made._owners.close()
                made._db.close()
        return known

    @classmethod
    def nudge_all(cls) -> None:
        """Wake every waiter of this process. Never waits: signal handlers call it."""
        for file in cls._open.values():
            file.nudge()

    @classmethod
    def after_fork(cls) -> None:
        """In a forked child: everything is opened anew, nothing of the parent's is closed.

        Closing an inherited SQLite connection could remove the log under the parent's hands.
        """
        for file in cls._open.values():
            # Only what is inherited by descriptor: the child must not keep its parent's name
            # alive.
            file._owners.disown()
            cls._inherited.append(file)
        cls._open = {}

    @classmethod
    def leave_all(cls) -> None:
        """At an orderly exit: what this process still holds is free at once."""
        for file in cls._open.values():
            file.leave()

    # ------------------------------------------------------------------ messages

    def put(
        self, queue: str, tag: str, body: str, *, rank: int = 0, expires_at: float | None = None
    ) -> None:
        """Add one message and wake the consumers. A lower ``rank`` goes first."""
        self._do(
            "insert into message(queue, tag, rank, expires_at, body) values(?, ?, ?, ?, ?)",
            (queue, tag, rank, expires_at, body),
        )
        # Committed by now: whoever wakes finds the row.
        self._owners.ring()
        self._look()

    def take(self, queue: str, *, keep: bool = True) -> Taken | None:
        """The next message of ``queue``, now this process's; None when there is none.

        ``keep=False`` for consumers that never acknowledge: the row goes at once.
        """
        self._look()
        values = {"queue": queue, "me": self._owners.join(), "now": time.time()}
        if not self._do(_NEXT, values):  # a plain read: an idle consumer takes no write lock
            return None
        rows = self._do(_TAKE if keep else _FORGET, values)
        return Taken(rows[0][0], rows[0][1] > 0) if rows else None

    def done(self, tag: str) -> None:
        """The message was dealt with: it goes."""
        self._do("delete from message where tag=?", (tag,))

    def give_back(self, tags: Iterable[str]) -> None:
        """These messages are free again, at the places that they had."""
        tags = list(tags)
        for tag in tags:
            # Only what is still ours: a message may have been freed and taken by somebody else
            # since.
            self._do(_FREE + "tag=? and owner=?", (tag, self._owners.me))
        if tags:
            self._owners.ring()

    def size(self, queue: str) -> int:
        """Messages of ``queue`` that nobody has been handed."""
        rows = self._do("select count(*) from message where queue=? and owner is null", (queue,))
        return int(rows[0][0])

    def purge(self, queue: str) -> int:
        """Drop the messages of ``queue`` that nobody has been handed; returns how many."""
        return len(
            self._do("delete from message where queue=? and owner is null returning 1", (queue,))
        )

    # ------------------------------------------------------------------ bindings

    def bind(self, exchange: str, key: str, pattern: str, queue: str, *, mine: bool) -> None:
        """Route ``exchange`` with ``key`` to ``queue``; ``mine``: the queue dies with us."""
        row = (exchange, key, pattern, queue)
        where = "exchange=? and routing_key=? and pattern=? and queue=? and owner is ?"
        # Bindings of lasting queues have no owner: they outlive whoever declared them.
        owner = self._owners.join() if mine else None
        # Every consumer declares every binding at every start: reading first keeps them from
        # queueing for the lock.
        if not self._do(f"select 1 from binding where {where}", (*row, owner)):  # noqa: S608
            self._do("insert or replace into binding values(?, ?, ?, ?, ?)", (*row, owner))

    def unbind(self, exchange: str, key: str, queue: str) -> None:
        """Undo :meth:`bind`."""
        self._do(
            "delete from binding where exchange=? and routing_key=? and queue=?",
            (exchange, key, queue),
        )

    def bindings(self, exchange: str) -> list[tuple[str, str, str]]:
        """(routing key, pattern, queue) of an exchange."""
        return self._do(
            "select routing_key, pattern, queue from binding where exchange=?", (exchange,)
        )

    def drop(self, queue: str) -> None:
        """Delete ``queue`` with its messages and bindings."""
        self._unread.pop(queue, None)
        self._together(
            [
                ("delete from binding where queue=?", (queue,)),
                ("delete from message where queue=?", (queue,)),
            ]
        )

    def unread(self, queue: str, seconds: float) -> None:
        """Nobody reads ``queue`` now; it goes when that lasts for ``seconds``."""
        self._unread[queue] = time.monotonic() + seconds

    def read(self, queue: str) -> None:
        """Somebody reads ``queue`` from now on."""
        self._unread.pop(queue, None)

    # ------------------------------------------------------------------ life

    def wait(self, seconds: float) -> None:
        """Wait until there may be something to take, ``seconds`` at most."""
        self._owners.wait(seconds)

    def nudge(self) -> None:
        """Wake this process's own waiters: it has room for another message."""
        self._owners.nudge()

    def leave(self) -> None:
        """Give back everything that this process holds, and its name."""
        if self._owners.me:
            self._free(self._owners.me)
            self._owners.leave()
            self._owners.ring()

    def close(self) -> None:
        """:meth:`leave` and close the file: for processes that go on without it (tests)."""
        self.leave()
        self._owners.close()
        self._db.close()
        self._open.pop(self._path, None)

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        # Before the look itself, which may wait: others would all begin one meanwhile.
        self._next_look = now + BURY_EVERY
        self._bury_dead()
        self._do_quietly("delete from message where expires_at<?", (time.time(),))
        for queue, limit in list(self._unread.items()):
            if limit < now:
                self.drop(queue)

    def _do_quietly(self, statement: str, values: tuple[Any, ...]) -> None:
        """A write that takes no lock when there is nothing to do."""
        where = statement.partition(" from ")[2]
        if self._do(f"select 1 from {where} limit 1", values):  # noqa: S608
            self._do(statement, values)

    def _bury_dead(self) -> None:
        named = self._do(
            "select owner from message where owner is not null"
            " union select owner from binding where owner is not null"
        )
        # Both: a process may have died before it held anything, and a row may name one whose lock
        # file is gone (a restored backup).
        for owner in self._owners.known() | {row[0] for row in named}:
            with self._owners.buried(owner) as dead:
                if dead:
                    self._free(owner)
                    self._owners.ring()
                    log.warning("messages of a dead process are free again", owner=owner)

    def _free(self, owner: str) -> None:
        self._together(
            [
                (
                    "delete from message where queue in (select queue from binding where owner=?)",
                    (owner,),
                ),
                ("delete from binding where owner=?", (owner,)),
                (_FREE + "owner=?", (owner,)),
            ]
        )

    def _together(self, statements: list[tuple[str, tuple[Any, ...]]]) -> None:
        """All in one transaction. It holds no switch: the wait for the lock is before it."""
        self._do("begin immediate")
        try:
            for statement, values in statements:
                self._db.execute(statement, values)
            self._db.execute("commit")
        except BaseException:
            self._db.execute("rollback")
            raise

    def _do(self, statement: str, values: Any = ()) -> list[Any]:
        """One statement, tried again while another process holds the file."""
        return patiently(lambda: self._db.execute(statement, values).fetchall(), LOCK_LIMIT)


# Celery and test runners fork. An SQLite connection must not be used on both sides of one.
os.register_at_fork(after_in_child=QueueFile.after_fork)
atexit.register(QueueFile.leave_all)
