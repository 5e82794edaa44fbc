"""`tidegate faults`: the pack from outside, and that it sees who is hurt."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gevent.pywsgi import WSGIServer

from tests.stack import running_stack
from tidegate.cli.faults import report
from tidegate.cli.faults.actors import ACTORS
from tidegate.cli.faults.calling import CUT, ERROR, HUNG, OK, Outcome, Server
from tidegate.cli.faults.running import Group, Seen
from tidegate.cli.target import Target
from tidegate.settings import Secret

ACTOR = {one.name: one for one in ACTORS}


@pytest.mark.limit(180, "starts all four roles; environments are built by uv")
@pytest.mark.blocks_hub("starts processes")
def test_the_pack_hurts_nobody_here_and_says_so(tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    with running_stack(tmp_path / "home") as stack:
        done = subprocess.run(
            [
                *(str(Path(sys.executable).with_name("tidegate")), "faults"),
                *("--base", f"http://127.0.0.1:{stack.port}", "--key", stack.key),
                *("--only", "exit,glued,leaver,endless-line", "--streams", "5"),
                *("--seconds", "2", "--output", str(output)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        left = stack.data("GET", "list?page=1&page_size=100")["list"]
    assert left == []
    assert "4 bad actors, 0 hurt somebody" in done.stdout
    facts = json.loads(output.read_text())
    ends = {one["name"]: one["culprit"]["end"] for one in facts["actors"]}
    assert ends == {"exit": "error", "glued": "ok", "leaver": "ok", "endless-line": "error"}
    [died] = [one for one in facts["actors"] if one["name"] == "exit"]
    assert died["same"]["ends"] == {"error": 5}
    assert died["other"]["whole"] == 5


def test_a_line_that_cannot_be_read_is_a_cut_stream_and_not_one_that_nobody_counts() -> None:
    for body in (b'data: {"code": 0, "da', b'data: {"code": 0, "data": {}}\n', b"data: []\n"):
        with serving(body) as base:
            server = Server(Target(base, Secret("k"), "t"), patience=5)
            assert server.call("acme/x", "tick", {}).end == CUT


@contextmanager
def serving(body: bytes) -> Iterator[str]:
    """The address of a server that answers everything with ``body``."""

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return [body]

    listener = WSGIServer(("127.0.0.1", 0), application, log=None)
    listener.start()
    yield f"http://127.0.0.1:{listener.server_port}"
    listener.stop(timeout=1)


def group(*ends: str, lost: int = 0) -> Group:
    return Group([Outcome(end, lost=lost) for end in ends], [Outcome(OK)])


@pytest.mark.parametrize(
    ("actor", "culprit", "same", "other", "said"),
    [
        ("print", OK, group(OK, OK), group(OK), ""),
        ("exit", ERROR, group(ERROR, ERROR), group(OK), ""),
        ("print", HUNG, group(OK), group(OK), "culprit's call hung"),
        ("print", OK, group(OK, lost=2), group(OK), "2 chunks lost (same)"),
        ("print", OK, group(ERROR), group(OK), "1 streams not whole (same)"),
        ("exit", ERROR, group(CUT), group(OK), "cut without a word (same)"),
        ("exit", ERROR, group(ERROR), group(ERROR), "1 streams not whole (other)"),
        ("exit", ERROR, group(HUNG), group(OK), "1 streams hung"),
    ],
)
def test_who_is_hurt_is_named(
    actor: str, culprit: str, same: Group, other: Group, said: str
) -> None:
    seen = Seen(ACTOR[actor], Outcome(culprit), same, other)
    assert said in "; ".join(seen.faults)
    assert bool(seen.faults) is bool(said)
    assert (said or "nobody") in report.tables([seen])


def test_failed_new_calls_are_a_fault() -> None:
    other = Group([Outcome(OK)], [Outcome(ERROR), Outcome(OK)])
    seen = Seen(ACTOR["print"], Outcome(OK), group(OK), other)
    assert seen.faults == ["1 new calls failed (other)"]
