"""TIDEGATE_BACKCALLS=self: what is refused before any plugin is asked."""

from __future__ import annotations

import pytest

from tests.unit.backcalls.conftest import RecordedAnswer, back_call, session
from tidegate.backcalls import KINDS, Caller
from tidegate.doors.plugins import open_own_answers
from tidegate.errors import BackCallFailed, NeedsDify
from tidegate.settings import Settings
from tidegate.storage import Database, migrate

pytestmark = pytest.mark.blocks_hub("migrations run in the test's process")

TOOL = {"tool_type": "builtin", "provider": "acme/time/time", "tool": "now", "tool_parameters": {}}


@pytest.fixture
def own(tmp_path):
    settings = Settings.load({"TIDEGATE_HOME": str(tmp_path), "TIDEGATE_BACKCALLS": "self"})
    migrate(settings)
    database = Database(settings)
    made = open_own_answers(settings, database)
    yield made
    made.close()
    database.dispose()


def ask(own, **more: object) -> None:
    call = back_call(Caller("acme/asker:0.0.1", {}), "tool", {**TOOL, **more})
    own.respond(KINDS["tool"], call, session(), RecordedAnswer())


def test_a_credential_that_only_dify_keeps_is_refused_by_its_name(own):
    """The operator's own would be another account's: the caller must know that it was not used."""
    with pytest.raises(NeedsDify, match=r"credential_id 'second'.*tidegate credential set"):
        ask(own, credential_id="second")


@pytest.mark.parametrize("absent", [{}, {"credential_id": ""}, {"credential_id": None}])
def test_without_one_the_operators_is_looked_for(own, absent):
    with pytest.raises(BackCallFailed, match="plugin not installed"):
        ask(own, **absent)
