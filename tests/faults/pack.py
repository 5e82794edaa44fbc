"""The pack of bad actors at work in a process of its own, so that whoever measures is not slowed.

    python tests/faults/pack.py BASE KEY AT_ONCE once|on ACTOR…

Plays the actors one after the other, once or over and over until its standard input closes; then
prints what each did, as JSON. :func:`at_work` runs it.
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

from tidegate.cli.faults.actors import ACTORS, Actor
from tidegate.cli.faults.calling import Server
from tidegate.cli.target import DEFAULT_TENANT, Target
from tidegate.settings import Secret

CULPRIT, CONTROL = "tidegate/badactor", "tidegate/bystander"
ROWS = {one.name: one for one in ACTORS}


@dataclass(frozen=True)
class Act:
    """One actor at work: how its call ended, and from when to when (on the machine's clock)."""

    name: str
    end: str
    began: float
    ended: float


@dataclass
class Played:
    """What the pack did; filled when it has ended."""

    process: subprocess.Popen[bytes]
    acts: list[Act] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether every actor had its turn; only where each has one."""
        return self.process.poll() is not None


@contextmanager
def at_work(
    base: str, key: str, actors: Sequence[str], *, at_once: int, once: bool = False
) -> Iterator[Played]:
    """The pack misbehaves while the block runs, or until each actor had its turn."""
    how = "once" if once else "on"
    command = [sys.executable, __file__, base, key, str(at_once), how, *actors]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    played = Played(process)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"at work\n"
        yield played
    finally:
        output, _ = process.communicate(timeout=60)
    played.acts = [Act(*one) for one in json.loads(output)]
    assert process.returncode == 0


def main(base: str, key: str, at_once: str, how: str, *names: str) -> None:
    """Play each once, or until standard input closes."""
    server = Server(Target(base, Secret(key), DEFAULT_TENANT), 30.0)
    chosen = [ROWS[name] for name in names]
    deck = iter(chosen) if how == "once" else itertools.cycle(chosen)
    over, seen = threading.Event(), []

    def play() -> None:
        while not over.is_set() and (actor := next(deck, None)) is not None:
            began = time.monotonic()
            end = perform(server, actor)
            seen.append((actor.name, end, began, time.monotonic()))
            time.sleep(0.01)

    threads = [threading.Thread(target=play) for _ in range(int(at_once))]
    for thread in threads:
        thread.start()
    print("at work", flush=True)
    if how != "once":
        sys.stdin.read()
        over.set()
    for thread in threads:
        thread.join()
    print(json.dumps(seen))


def perform(server: Server, actor: Actor) -> str:
    """One actor's turn; how its call ended."""
    call = (CULPRIT, actor.deed or "pid", actor.given)
    if actor.client == "call":
        return server.call(*call).end
    return server.misbehave(actor.client, *call).end


if __name__ == "__main__":
    main(*sys.argv[1:])
