"""Times in answers stand in the zone of SERVER_TZ (spec/http/01 section 1.6)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.databases import Backend
from tests.integration.door_world import World, world
from tests.integration.test_routes_endpoints import DECLARATION, HOOKED, set_up

PAGE = {"page": 1, "page_size": 10}


def dated(value: Any) -> Iterator[str]:
    """Every time of a row in an answer; those of manifests are the author's."""
    if isinstance(value, list):
        for one in value:
            yield from dated(one)
    elif isinstance(value, dict):
        for name, one in value.items():
            if name.endswith("d_at"):
                yield one
            elif name != "declaration":
                yield from dated(one)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("door")
    with (
        backend.fresh() as servers,
        world(folder, {}, SERVER_TZ="Asia/Kolkata", **servers) as made,
    ):
        tool = {"identity": {"author": "a", "name": "p"}, "tools": []}
        made.install(HOOKED, {**DECLARATION, "tool": tool})
        assert set_up(made, settings={"token": "t"})[0] == 200
        made.call("GET", "/metrics/")  # opens the link, which then is the door's, not a test's
        yield made


@pytest.mark.parametrize("path", ["management/list", "management/tools", "endpoint/list"])
def test_rows_are_shown_in_the_zone_that_was_set(door: World, path: str) -> None:
    data = door.envelope("GET", path, query=PAGE)[1]["data"]
    times = list(dated(data))
    assert len(times) >= 2
    for text in times:
        assert text.endswith("+05:30")
    made = datetime.fromisoformat(times[0])
    assert abs(made - datetime.now(UTC)) < timedelta(minutes=5)
