"""Live, ready, deep: what each says when something is not there."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from tests.integration.door_world import WEATHER, world
from tidegate.storage import job_rows
from tidegate.storage.blobs.local import MARK

UP = {
    "identifier": WEATHER,
    "phase": "up",
    "deaths": 1,
    "quarantined_until": None,
    "last_error": "",
}
QUARANTINED = {
    "identifier": WEATHER.replace("weather", "broken"),
    "phase": "quarantined",
    "deaths": 5,
    "quarantined_until": 1.0,
    "last_error": "exit code 3: no luck today",
}


def ask(site, path: str, key: str = "secret"):
    status, body, _ = site.call("GET", path, key=key)
    return status, json.loads(body)


@pytest.fixture
def site(tmp_path):
    with world(tmp_path, {}) as site:
        site.host.answers["status"] = UP
        yield site


def test_all_is_well(site):
    assert ask(site, "/health/live", key="")[0] == 200
    while not site.services.calls.connected:
        site.call("GET", "/debug/runtime")
    status, shown = ask(site, "/health/ready", key="")
    assert (status, shown["checks"]) == (200, {"database": "ok", "host": "ok"})
    status, shown = ask(site, "/health/deep")
    assert (status, set(shown["checks"].values())) == (200, {"ok"})
    assert shown["plugins"] == [UP]


def test_what_shows_more_asks_for_the_key(site):
    assert ask(site, "/health/deep", key="wrong")[0] == 401
    assert ask(site, "/health/plugins/acme/weather", key="wrong")[0] == 401


def test_each_plugin_has_its_own_health(site):
    status, shown = ask(site, "/health/plugins/acme/weather")
    assert (status, shown["status"]) == (200, "ok")
    assert ask(site, "/health/plugins/acme/unknown")[0] == 404
    site.host.answers["status"] = QUARANTINED
    status, shown = ask(site, "/health/plugins/acme/broken")
    assert status == 503
    assert "no luck today" in shown["checks"]["plugin"]
    assert ask(site, "/health/deep")[0] == 200, "one ill plugin is no reason to restart the server"


def test_a_plugin_is_not_well_while_its_host_does_not_answer(site):
    site.services.calls.stop()
    status, shown = ask(site, "/health/plugins/acme/weather")
    assert (status, list(shown["checks"])) == (503, ["host"])


def test_D_45_a_database_that_is_away_is_named_and_the_process_is_alive(site):
    site.services.database.dispose()
    for path in site.settings.home.database.parent.glob(f"{site.settings.home.database.name}*"):
        path.unlink()
    site.settings.home.database.mkdir()
    status, shown = ask(site, "/health/ready", key="")
    assert status == 503
    assert "unable to open database" in shown["checks"]["database"]
    assert ask(site, "/health/live", key="")[0] == 200


def test_a_blob_store_that_is_away_is_named(site):
    (site.settings.blob_root / MARK).unlink()
    status, shown = ask(site, "/health/deep")
    assert status == 503
    assert "mounted" in shown["checks"]["blobs"]
    assert shown["checks"]["database"] == "ok"


def test_jobs_that_no_worker_takes_are_named(site):
    with site.services.database.write() as conn:
        job_rows.enqueue(conn, "install", "nobody comes", "{}")
        conn.execute(text("update tidegate_jobs set lease_from = 0, lease_until = 0"))
    status, shown = ask(site, "/health/deep")
    assert (status, shown["checks"]["jobs"]) == (503, "1 jobs that no worker takes")


def test_a_draining_process_is_alive_and_not_ready(site):
    site.drain.begin(20)
    assert ask(site, "/health/live", key="")[0] == 200
    assert ask(site, "/health/ready", key="")[0] == 503
