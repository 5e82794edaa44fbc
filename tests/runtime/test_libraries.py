"""psycopg2, gRPC and the rest of the library wait through gevent (R21, R22, R33)."""

from __future__ import annotations

import os
import time

import gevent
import pytest
from gevent.pool import Pool

from tests.runtime.asking import ask
from tests.servers import PostgresServer


def test_R21_psycopg2_does_not_block_the_hub(probe, environ, postgres: PostgresServer):
    probe()
    dsn = f"host={postgres.host} port={postgres.port} user={postgres.user} dbname=postgres"
    if postgres.password:
        dsn += f" password={postgres.password}"
    measured = ask(environ, "/postgres", dsn=dsn)
    assert measured["took"] < 1.0
    assert measured["silence"] < 0.2


@pytest.mark.parametrize("executor", ["", "yes"], ids=["greenlets", "executor"])
def test_R22_grpc_does_not_block_the_hub(probe, environ, start, executor):
    server = start("python", "-m", "grpc_server")
    address = f"127.0.0.1:{server.wait_for(r'port ([0-9]+)')[1]}"
    probe()
    measured = ask(environ, "/grpc", address=address, seconds="1", count="5", executor=executor)
    assert measured["took"] < 1.5
    assert measured["silence"] < 0.2
    many = ask(environ, "/grpc", address=address, seconds="0", count="1000", executor=executor)
    assert many["took"] < 15


@pytest.mark.stretched
@pytest.mark.limit(900, "R33's ten minutes, scaled: its full length is run by make soak")
def test_R33_mixed_requests_do_not_stall(probe, environ):
    probe()
    seconds = 600.0 if os.environ.get("TIDEGATE_TEST_SOAK") else 6.0
    ask(environ, "/silence")
    ends_at = time.monotonic() + seconds
    answers: list[object] = []

    def client(number: int) -> None:
        while time.monotonic() < ends_at:
            answers.append(ask(environ, "/mixed", n=str(number)))
            assert answers[-1] == [str(number), str(number), [1]]

    pool = Pool(200)
    for number in range(200):
        pool.spawn(client, number)
    with gevent.Timeout(seconds + 60):
        pool.join(raise_error=True)
    assert len(answers) >= 200
    assert ask(environ, "/silence") < 1.0
