"""The gate: the manifest alone says what a plugin may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.backcalls.conftest import ALL, PLUGIN, back_call, session
from tidegate.backcalls import KINDS, Caller
from tidegate.backcalls.gate import admit
from tidegate.doors.plugins.deeds import DEEDS
from tidegate.errors import BackCallInvalid, PermissionDenied, SessionOver

GUARDED = sorted(KINDS.keys() - {"upload_file"})


@pytest.mark.parametrize("type", sorted(KINDS))
def test_what_the_manifest_grants_passes(caller: Caller, type: str) -> None:
    kind, found = admit(back_call(caller, type, {}))
    assert kind.type == type
    assert found.tenant


@pytest.mark.parametrize("type", GUARDED)
@pytest.mark.parametrize("how", ["nothing", "section off", "switch off", "null"])
def test_what_the_manifest_does_not_grant_is_refused(type: str, how: str) -> None:
    section, switch = KINDS[type].permission
    permission: dict[str, object] = {key: value for key, value in ALL.items() if key != section}
    if how == "section off":
        permission[section] = {**ALL[section], "enabled": False}
    elif how == "switch off":
        permission[section] = {**ALL[section], switch or "enabled": False}
    elif how == "null":
        permission[section] = None
    with pytest.raises(PermissionDenied, match="in plugin manifest") as caught:
        admit(back_call(Caller(PLUGIN, permission), type, {}))
    assert caught.value.details["permission"].startswith(section)


def test_uploading_a_file_needs_no_permission() -> None:
    assert admit(back_call(Caller(PLUGIN, {}), "upload_file", {}))


def test_the_texts_are_the_references() -> None:
    with pytest.raises(PermissionDenied) as caught:
        admit(back_call(Caller(PLUGIN, {}), "multimodal_embedding", {}))
    assert str(caught.value) == (
        "permission denied, you need to enable text-embedding access in plugin manifest"
    )


def test_a_model_may_not_call_back(caller: Caller) -> None:
    with pytest.raises(PermissionDenied, match=r"^you can not invoke dify from model$"):
        admit(back_call(caller, "tool", {}, of=session(type="model")))


@pytest.mark.parametrize("type", ["encrypt", "dance", ""])
def test_an_unknown_type_is_refused(caller: Caller, type: str) -> None:
    with pytest.raises(BackCallInvalid, match=f"^unsupported invoke type: {type}$"):
        admit(back_call(caller, type, {}))


def test_a_session_that_is_over_or_foreign_is_refused(caller: Caller) -> None:
    with pytest.raises(SessionOver):
        admit(back_call(caller, "llm", {}, of=None))


def test_the_page_about_back_calls_has_each_type_as_the_table_says() -> None:
    page = Path(__file__).parents[3] / "docs" / "back-calls.md"
    rows = {}
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            rows[cells[0]] = cells[1:]
    assert rows.keys() == KINDS.keys()
    for type, (permission, path, here) in rows.items():
        kind = KINDS[type]
        assert permission == (".".join(filter(None, kind.permission or ())) or "none")
        assert path == kind.path
        assert (here == "NeedsDify") == (type != "storage" and type not in DEEDS)
