"""The published defect (langgenius/dify#292, dify-plugin-daemon#346) as a regression test.

A tool declares an output_schema and sends variables; its sessions raise, are left early, or send
what does not fit, 200 at once. The reference's reader added variables to the map that its closer
was validating, and the whole daemon died with every plugin. Here the host lives, the other
sessions are whole and each plugin's own error is kept.
"""

from __future__ import annotations

from collections import Counter

import gevent
import pytest

from tests.hosting import PLUGINS, package_of
from tests.stack import Stack, running_stack

DEEDS = ("good", "raises", "unfit", "missing", "leaves")
SESSIONS = 200
MISBEHAVE = "tidegate/misbehave"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory):
    home = tmp_path_factory.mktemp("schema") / "home"
    with running_stack(home, TIDEGATE_OUTPUT_SCHEMA="enforce") as stack:
        stack.install(package_of(PLUGINS / "misbehave", home.parent))
        yield stack


def one_session(stack: Stack, deed: str):
    left = 5 if deed == "leaves" else None
    asked = "good" if deed == "leaves" else deed
    return deed, stack.tool(MISBEHAVE, "typed", {"deed": asked}, leave_after=left)


@pytest.mark.limit(120)
def test_PR346_issue_292_sessions_that_raise_leave_or_do_not_fit_cost_only_themselves(stack):
    host = stack.pid("host")
    sessions = [
        gevent.spawn(one_session, stack, DEEDS[number % len(DEEDS)]) for number in range(SESSIONS)
    ]
    gevent.joinall(sessions, raise_error=True)
    seen: Counter[tuple[str, str]] = Counter()
    for deed, answer in (session.value for session in sessions):
        expected = 5 if deed == "leaves" else 100 if deed == "raises" else 101
        assert len(answer.items) == expected, (deed, answer.error)
        seen[deed, (answer.error or {}).get("error_type", "none")] += 1
    each = SESSIONS // len(DEEDS)
    assert seen == {
        ("good", "none"): each,
        ("leaves", "none"): each,
        ("raises", "ValueError"): each,
        ("unfit", "OutputSchemaViolation"): each,
        ("missing", "OutputSchemaViolation"): each,
    }
    assert stack.pid("host") == host
    assert one_session(stack, "good")[1].error is None


def test_a_violation_names_the_path_and_comes_after_every_chunk(stack):
    _, answer = one_session(stack, "unfit")
    assert len(answer.items) == 101
    assert answer.error["message"].startswith("tool output schema is not valid")
    assert answer.error["args"] == {"path": "$.count"}
