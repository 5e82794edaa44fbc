"""The pack of bad actors at work in a process of its own, so that whoever measures is not slowed.

    python tests/faults/pack.py BASE KEY AT_ONCE ACTOR…

Plays the actors one after the other, over and over, until its standard input closes; then prints
how each call ended, as JSON. :func:`at_work` runs it.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tidegate.cli.faults.actors import ACTORS
from tidegate.cli.faults.calling import Server
from tidegate.cli.target import DEFAULT_TENANT, Target
from tidegate.settings import Secret

CULPRIT, CONTROL = "tidegate/badactor", "tidegate/bystander"


@dataclass
class Played:
    """What the pack did; filled when it has ended."""

    ends: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def at_work(base: str, key: str, actors: Sequence[str], *, at_once: int) -> Iterator[Played]:
    """The pack misbehaves while the block runs."""
    command = [sys.executable, __file__, base, key, str(at_once), *actors]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    played = Played()
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"at work\n"
        yield played
    finally:
        output, _ = process.communicate(timeout=60)
    played.ends = [(name, end) for name, end in json.loads(output)]
    assert process.returncode == 0


def main(base: str, key: str, at_once: str, *names: str) -> None:
    """Play until standard input closes."""
    server = Server(Target(base, Secret(key), DEFAULT_TENANT), 30.0)
    deck = itertools.cycle([one for one in ACTORS if one.name in names])
    over, seen = threading.Event(), []

    def play() -> None:
        while not over.is_set():
            actor = next(deck)
            call = (CULPRIT, actor.deed or "pid", actor.given)
            whole = actor.client == "call"
            outcome = server.call(*call) if whole else server.misbehave(actor.client, *call)
            seen.append((actor.name, outcome.end))
            time.sleep(0.01)

    threads = [threading.Thread(target=play) for _ in range(int(at_once))]
    for thread in threads:
        thread.start()
    print("at work", flush=True)
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
