"""A PostgreSQL of a test's own that can be stopped and started, and made to fail from inside."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2

from tests import servers
from tests.faults.sampling import state
from tests.patience import wait_until
from tests.servers import PostgresServer


@dataclass
class OwnPostgres:
    """One server from the wheel. ``environ`` leads to its one database."""

    server: PostgresServer
    environ: dict[str, str]
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def database(self) -> str:
        """The name of the database that the product uses."""
        return self.environ["DB_DATABASE"]

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """A restart, by fast shutdown; what is inside happens while it is down."""
        folder = Path(self.server.host)
        written = folder / "data" / "postmaster.pid"
        pid = int(written.read_text().split()[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
        owner = (folder / "data").stat()
        os.kill(pid, signal.SIGINT)
        wait_until(lambda: state(pid) in ("", "Z"), 30)
        try:
            yield
        finally:
            self._started.append(
                subprocess.Popen(
                    command,
                    user=owner.st_uid if os.geteuid() == 0 else None,
                    cwd=folder,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
            wait_until(lambda: written.exists() and "ready" in written.read_text(), 30)

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """One statement in the product's database."""
        return self.server.execute(statement, self.database)

    @contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Nobody else can so much as read ``table`` meanwhile."""
        arguments = {"host": self.server.host, "port": self.server.port, "user": self.server.user}
        with closing(psycopg2.connect(dbname=self.database, **arguments)) as connection:
            connection.cursor().execute(f'LOCK TABLE "{table}" IN ACCESS EXCLUSIVE MODE')
            yield
            connection.rollback()

    def fail_next_writes(self, table: str, times: int, state: str) -> None:
        """The next ``times`` updates of ``table`` fail with an SQLSTATE, as PostgreSQL's own do."""
        self.execute("DROP SEQUENCE IF EXISTS failures CASCADE; CREATE SEQUENCE failures")
        self.execute(
            "CREATE OR REPLACE FUNCTION fail_some() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            # a sequence is not rolled back with the transaction that it ends
            f"IF nextval('failures') <= {times} THEN "
            f"RAISE EXCEPTION 'as the test wants' USING ERRCODE = '{state}'; END IF; "
            "RETURN NEW; END $$"
        )
        self.execute(
            f'CREATE OR REPLACE TRIGGER fail_some BEFORE UPDATE ON "{table}" '
            "FOR EACH ROW EXECUTE FUNCTION fail_some()"
        )

    def failed(self) -> int:
        """How many of those have failed or could have."""
        [(value,)] = self.execute("SELECT last_value FROM failures")
        assert isinstance(value, int)
        return value

    def fail_over(self, *, read_only: bool) -> None:
        """Every connection ends, and the next ones find a standby, or the new primary."""
        switch = "on" if read_only else "off"
        self.server.execute(
            f'ALTER DATABASE "{self.database}" SET default_transaction_read_only = {switch}'
        )
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    def end(self) -> None:
        """Stop what was started here; the keeper ends the rest."""
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self._started:
            wait_until(lambda process=process: state(process.pid) in ("", "Z"), 30)
            process.wait(10)


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """Always from the wheel: a server that the environment names is not ours to stop."""
    with servers._keeper("postgres") as answer:
        server = PostgresServer(**answer)
        server.execute('CREATE DATABASE "tidegate"')
        made = OwnPostgres(server, server.environ("tidegate"))
        try:
            yield made
        finally:
            made.end()
