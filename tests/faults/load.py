"""A mixed load for soaks: all that a Tidegate does in its life, at once, for some seconds."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import gevent

from tests.faults.clients import act, data_of
from tests.hosting import PLUGINS, package_of
from tests.stack import TENANT, Answer, Stack

CRASHER, BACKCALLER, ACTOR = "tidegate/crasher", "tidegate/backcaller", "tidegate/actor"
PASSING = 4
NOISY = ("fail", "noise", "glued", "broken_line", "after_the_end", "unknown_events")
TYPED = {"PluginDied", "PluginStartFailed", "PluginQuarantined"}


class MixedLoad:
    """Installs what it needs when it is made; :meth:`run` loads the stack and then leaves it."""

    def __init__(self, stack: Stack, scratch: Path) -> None:
        self.stack = stack
        self.done: Counter[str] = Counter()
        folder = PLUGINS / "misbehave"
        stack.install(package_of(folder, scratch))
        stack.install(package_of(folder, scratch, name="crasher"))
        stack.install(package_of(PLUGINS / "backcaller", scratch))
        stack.install(package_of(PLUGINS / "actor", scratch))
        self._hook = _hook_of(stack)
        self._passing = [
            (f"tidegate/passing{number}", package_of(folder, scratch, name=f"passing{number}"))
            for number in range(PASSING)
        ]

    def run(self, seconds: float) -> None:
        """Every kind of load at once; returns when all of it has ended."""
        jobs = [*[self.call] * 3, *[self.stream] * 3, self.leave, self.noise, self.back_call]
        jobs += [self.crash, self.come_and_go, self.webhook]
        ends_at = time.monotonic() + seconds
        greenlets = [gevent.spawn(self._repeat, job, ends_at) for job in jobs]
        gevent.joinall(greenlets, raise_error=True)

    def rest(self) -> None:
        """Each plugin is up again, and does nothing."""
        for plugin in ("tidegate/misbehave", CRASHER):
            answer = act(self.stack, "echo", plugin, text="here")
            assert answer.texts == ["here"], answer
        self._asked({"what": "two"})

    def _repeat(self, job: Callable[[], None], ends_at: float) -> None:
        while time.monotonic() < ends_at:
            job()
            self.done[job.__name__] += 1

    # ------------------------------------------------------------------ kinds

    def call(self) -> None:
        """Short and whole."""
        answer = act(self.stack, "echo", text="x" * random.randint(1, 5000))
        assert len(answer.texts) == 1, answer
        gevent.sleep(0.02)

    def stream(self) -> None:
        """Some hundred chunks."""
        answer = act(self.stack, "stream", count=100, pause=0.01, size=random.randint(0, 2000))
        assert len(answer.texts) == 100, answer

    def leave(self) -> None:
        """A client that has seen enough."""
        self.stack.call(
            "tidegate/misbehave", "tool/invoke", data_of("stream", count=500, pause=0.01),
            leave_after=3,
        )  # fmt: skip
        gevent.sleep(0.1)

    def noise(self) -> None:
        """Errors of the plugin and lines that are none."""
        act(self.stack, random.choice(NOISY))
        gevent.sleep(0.05)

    def back_call(self) -> None:
        """A tool that asks for what others have."""
        self._asked({"what": random.choice(["two", "llm", "embedding", "moderation", "app"])})
        gevent.sleep(0.05)

    def _asked(self, given: dict[str, str]) -> Answer:
        answer = self.stack.tool(BACKCALLER, "ask", given)
        assert answer.error is None, answer
        return answer

    def crash(self) -> None:
        """A process dies under the call that killed it."""
        answer = act(self.stack, random.choice(["die", "crash", "die_with_children"]), CRASHER)
        assert answer.error is not None
        assert answer.error["error_type"] in TYPED, answer
        served = act(self.stack, "echo", CRASHER, text="up")  # a crash loop would be quarantined
        assert served.texts == ["up"], served
        gevent.sleep(0.5)

    def come_and_go(self) -> None:
        """Installed, called, uninstalled."""
        plugin, package = random.choice(self._passing)
        self.stack.install(package)
        assert act(self.stack, "echo", plugin, text="hi").texts == ["hi"]
        rows = self.stack.data("GET", "list?page=1&page_size=100")["list"]
        [row] = [one for one in rows if one["plugin_id"] == plugin]
        self.stack.data("POST", "uninstall", {"plugin_installation_id": row["id"]})

    def webhook(self) -> None:
        """Somebody knocks at an endpoint."""
        connection = self.stack.connection()
        try:
            connection.request("POST", f"/e/{self._hook}/echo/a?x=1", b"the body" * 100)
            answer = connection.getresponse()
            assert answer.status == 201
            assert answer.read().endswith(b"the body")
        finally:
            connection.close()
        gevent.sleep(0.1)


def _hook_of(stack: Stack) -> str:
    rows = stack.data("GET", "list?page=1&page_size=100")["list"]
    [identifier] = [one["plugin_unique_identifier"] for one in rows if one["plugin_id"] == ACTOR]
    asked = {
        "plugin_unique_identifier": identifier,
        "user_id": "u",
        "name": "hook",
        "settings": {"token": "the-secret"},
    }
    prefix = f"/plugin/{TENANT}/endpoint/"
    kind = {"Content_Type": "application/json"}
    _, raw = stack.ask("POST", prefix + "setup", json.dumps(asked).encode(), **kind)
    assert json.loads(raw)["data"] is True, raw
    _, raw = stack.ask("GET", prefix + "list?page=1&page_size=10")
    [endpoint] = json.loads(raw)["data"]
    return str(endpoint["hook_id"])
