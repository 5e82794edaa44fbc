"""``tidegate up``: the four roles on one machine, started in order, watched, stopped in order.

    migrate ── host ── worker ── beat ── api          start
    api ── beat ── worker ── host                     stop: callers first, plugins last

A plain, unpatched Python process with one thread and one selector. A role that dies is started
again after a pause that doubles; one that never became ready, that refuses to start (78) or that
dies too often in a row ends everything, loudly. What outlives its role is killed.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import NoReturn, final

from tidegate.clock import doubled
from tidegate.errors import StartRefused
from tidegate.runtime import launcher
from tidegate.runtime.home import prepare_home, take_lock
from tidegate.runtime.limits import dump_no_memory
from tidegate.runtime.readiness import api_address
from tidegate.runtime.roles import DEATHS, Role, State, show
from tidegate.settings import Settings

START_ORDER = ("host", "worker", "beat", "api")
STOP_ORDER = ("api", "beat", "worker", "host")
#: Exit code when a role could not be kept running.
GAVE_UP = 1
# A death wakes the loop by the end of the role's output; only readiness has to be asked for.
_TICK_STARTING = 0.1
_TICK = 1.0
_LONGEST_PAUSE = 30.0
# What each role gets beyond the grace of its streams to end by itself.
_SLACK = 4.0
_LINE_SHOWN = 300
_PR_SET_CHILD_SUBREAPER = 36


def launch_up(argv: Sequence[str], *, after_ready: Sequence[str] = ()) -> NoReturn:
    """All of ``tidegate up``: prepare, check or run, end the process. Called by the CLI.

    ``argv`` may hold --print, --check, --reload and --quiet. Ends by SystemExit: the code of
    :func:`run`, 0 after --print and --check, 78 when refused.
    """
    with launcher.refusals_end_the_process():
        settings = prepare_home(os.environ)
        if "--check" in argv and "--print" not in argv:
            for role in START_ORDER:
                launcher.check(role, settings)
        if "--print" in argv or "--check" in argv:
            for role in START_ORDER:
                print(shlex.join(launcher.command_for(role, settings)))
            raise SystemExit(0)
        reload, quiet = "--reload" in argv, "--quiet" in argv
        raise SystemExit(run(settings, reload=reload, quiet=quiet, after_ready=after_ready))


def run(
    settings: Settings,
    *,
    reload: bool = False,
    quiet: bool = False,
    after_ready: Sequence[str] = (),
) -> int:
    """Run everything until told to stop. Returns the exit code; 0 after an orderly stop.

    ``quiet`` leaves what the roles say in their logs, so that a person sees what matters.
    ``after_ready`` is a command that is run once, on this terminal, when all roles serve (`make
    run` installs its examples by it). StartRefused when another one runs on this data folder, or
    when migrations fail.
    """
    # Before anything is checked: two that start at once would both find the port free.
    lock = take_lock(settings.home, "up", "`tidegate up` runs already")
    for name in START_ORDER:
        launcher.check(name, settings)
    _migrate(settings)
    dump_no_memory(settings)
    commands = {name: launcher.command_for(name, settings) for name in START_ORDER}
    environ = _environment(settings, reload=reload)
    supervisor = Supervisor(settings, commands, environ, after_ready, quiet=quiet)
    try:
        return supervisor.run()
    finally:
        supervisor.stop()
        lock.close()


@final
class Supervisor:
    """The loop. Made and run by :func:`run`."""

    def __init__(
        self,
        settings: Settings,
        commands: Mapping[str, list[str]],
        environ: Mapping[str, str],
        after_ready: Sequence[str] = (),
        *,
        quiet: bool = False,
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._after_ready = after_ready
        self._guest: subprocess.Popen[bytes] | None = None
        self._roles = {
            name: Role(name, commands[name], settings, environ, quiet=quiet) for name in START_ORDER
        }
        self._selector = selectors.DefaultSelector()
        self._wake = self._listen_for_signals()
        self._told = 0
        self._failed = False
        self._announced = False

    def run(self) -> int:
        """Start, watch, until a signal or a role that cannot be kept."""
        _adopt_orphans()
        _say(f"starting {', '.join(START_ORDER)}")
        for role in self._roles.values():
            self._start(role)
        while not (self._told or self._failed):
            self._turn()
            for role in self._roles.values():
                self._look_after(role)
            self._announce()
        return GAVE_UP if self._failed else 0

    def stop(self) -> None:
        """Stop the roles in order within the grace, kill what is left, leave nothing behind."""
        self._told = 0
        if self._guest is not None:
            self._guest.terminate()
        grace = self._settings.tidegate_grace
        _say(f"stopping {', '.join(STOP_ORDER)}; running calls get up to {grace:g} s")
        ends_at = time.monotonic() + grace + _SLACK
        # Callers first: a stream of the api is ended by a word of its own, not by a host that is
        # gone.
        for name in STOP_ORDER:
            self._stop_one(self._roles[name], ends_at)
        for role in self._roles.values():
            role.kill()
            role.close()
        _kill_orphans()
        self._selector.close()
        _say("stopped")

    def _start(self, role: Role) -> None:
        role.start(time.monotonic())
        assert role.output is not None  # noqa: S101 - it was just started
        self._selector.register(role.output, selectors.EVENT_READ, role)

    def _turn(self) -> None:
        busy = any(role.state is not State.READY for role in self._roles.values())
        for key, _ in self._selector.select(_TICK_STARTING if busy or self._told else _TICK):
            if isinstance(key.data, Role):
                if not key.data.read():
                    self._selector.unregister(key.fileobj)
            else:
                self._told = os.read(self._wake, 1)[0]

    def _look_after(self, role: Role) -> None:
        now = time.monotonic()
        output = role.output
        code = role.ended(now)
        if code is not None:
            self._forget(output)
            # Before it is started again: what it left may hold its port or its socket.
            _kill_orphans(keep=self._own_pids())
            self._judge(role, code, now)
        elif role.state is State.DOWN and now >= role.starts_at:
            self._start(role)
        elif role.check_ready():
            _say(f"{role.name} is ready after {now - role.started_at:.1f} s")

    def _judge(self, role: Role, code: int, now: float) -> None:
        log = self._settings.home.logs / f"{role.name}.log"
        # What never worked does not work the next time: loud at once, instead of a loop that looks
        # like life.
        if not role.was_ready or code == StartRefused.exit_code or role.deaths >= DEATHS:
            _say(f"{role.name} cannot be kept running ({_exit_text(code)}): see {log}")
            if role.last_line:
                _say(f"the last that {role.name} said: {role.last_line[:_LINE_SHOWN]}")
            self._failed = True
            return
        pause = doubled(0.5, role.deaths - 1, _LONGEST_PAUSE)
        role.starts_at = now + pause
        _say(f"{role.name} ended ({_exit_text(code)}), starts again in {pause:g} s: see {log}")

    def _own_pids(self) -> set[int]:
        guest = {self._guest.pid} if self._guest and self._guest.poll() is None else set()
        # The guest as well: it is a child like any other, and no orphan.
        return {role.pid for role in self._roles.values()} | guest

    def _announce(self) -> None:
        if self._announced or any(role.state is not State.READY for role in self._roles.values()):
            return
        self._announced = True
        host, port = api_address(self._settings)
        home = self._settings.home
        shown = f"[{host}]" if ":" in host else host
        _say(f"ready: http://{shown}:{port}  data {home.root}  logs {home.logs}  keys {home.keys}")
        if self._after_ready:
            self._guest = subprocess.Popen(list(self._after_ready), env=dict(self._environ))

    def _stop_one(self, role: Role, ends_at: float) -> None:
        role.signal(signal.SIGTERM)
        role.state = State.DOWN
        while role.pid and time.monotonic() < ends_at:
            output = role.output
            self._turn()
            if self._told:  # asked a second time: no patience left
                return
            if role.ended(time.monotonic()) is not None:
                self._forget(output)

    def _forget(self, output: object) -> None:
        if output is not None:
            for key in list(self._selector.get_map().values()):
                if key.fileobj is output:
                    self._selector.unregister(key.fileobj)

    def _listen_for_signals(self) -> int:
        reader, writer = os.pipe()
        for end in (reader, writer):
            os.set_blocking(end, False)
        # A signal is a byte in a pipe, which the one selector waits on: none is lost between a look
        # and the next.
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self._selector.register(reader, selectors.EVENT_READ, None)
        return reader


def _environment(settings: Settings, *, reload: bool) -> dict[str, str]:
    environ = dict(os.environ)
    environ["TIDEGATE_HOME"] = settings.tidegate_home
    environ["TIDEGATE_SUPERVISED"] = "true"
    environ["PYTHONUNBUFFERED"] = "1"
    if reload:
        environ["TIDEGATE_RELOAD"] = "true"
    return environ


def _migrate(settings: Settings) -> None:
    """Bring the database up to date, in a process of its own: this one stays small."""
    command = [*launcher.script("tidegate"), "migrate"]
    environ = _environment(settings, reload=False)
    done = subprocess.run(command, env=environ, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise StartRefused(f"the database could not be brought up to date ({' '.join(command)})")


def _adopt_orphans() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _kill_orphans(keep: Set[int] = frozenset()) -> None:
    """Kill and reap what was handed to this process when its own parent ended."""
    for pid in _children() - keep - {0}:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            continue


def _children() -> set[int]:
    pid = os.getpid()
    return {int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def _exit_text(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name, and must not end the report of a death
        return f"signal {-code}"


def _say(text: str) -> None:
    show(f"tidegate: {text}\n".encode())
