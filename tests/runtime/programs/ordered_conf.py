"""Our Gunicorn configuration, and a line for each step of the boot with what is patched then."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import Any

from gevent import events

from tidegate import gunicorn_conf
from tidegate.gunicorn_conf import *  # noqa: F403 - the configuration under test
from tidegate.runtime import patches


def _say(step: str) -> None:
    ours = sorted(
        name.split(".")[1]
        for name in sys.modules
        if name.startswith("tidegate.") and name.count(".") == 1
    )
    early = [one for one in patches.bound_originals() if patches.patched_modules()]
    print(
        f"STEP {step} patched={len(patches.REQUIRED) - len(patches.missing_patches())} "
        f"third={patches.grpc_patched() and patches.psycopg2_patched()} early={early} "
        f"ours={','.join(ours)}",
        flush=True,
    )


def on_starting(server: Any) -> None:
    _say("on_starting")
    gunicorn_conf.on_starting(server)


def post_fork(server: Any, worker: Any) -> None:
    _say("post_fork")


def post_worker_init(worker: Any) -> None:
    gunicorn_conf.post_worker_init(worker)
    _say("post_worker_init")


class _Watcher(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "tidegate.app":
            _say("app")


def _event(event: object) -> None:
    if isinstance(event, events.GeventWillPatchAllEvent):
        _say("will_patch")
    elif isinstance(event, events.GeventDidPatchBuiltinModulesEvent):
        _say("did_patch")


events.subscribers.append(_event)
sys.meta_path.insert(0, _Watcher())
_say("conf")
