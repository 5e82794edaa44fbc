"""Gunicorn after something went wrong before it: ``run_gunicorn.py early|ssl ARGUMENTS``."""

from __future__ import annotations

import sys

from gunicorn.app.wsgiapp import run

kind = sys.argv.pop(1)
if kind == "early":
    import early  # noqa: F401 - that is the fault
elif kind == "ssl":
    from gevent import monkey

    patch_all = monkey.patch_all
    monkey.patch_all = lambda: patch_all(ssl=False)  # one library stays unpatched
run(prog="gunicorn")
