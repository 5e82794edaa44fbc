"""The application that Gunicorn loads: ``tidegate.app:app``.

Importable anywhere; in a Gunicorn worker that passed the patches it composes the api, anywhere
else it stays empty and each request raises one line that names the command. Starting this file
itself is refused before anything is imported.
"""

from __future__ import annotations

import sys

_HINT = "start the api with `tidegate api` (Gunicorn with its gevent worker)"

if __name__ == "__main__":
    print(f"tidegate: tidegate.app is not a program: {_HINT}", file=sys.stderr)
    raise SystemExit(78)

import os  # noqa: E402 - after the refusal, which imports nothing
from collections.abc import Iterable  # noqa: E402
from typing import Any, final  # noqa: E402

from tidegate.errors import StartRefused  # noqa: E402
from tidegate.runtime import boot, gunicorn_guards, launcher, prepare_home  # noqa: E402


@final
class Application:
    """The WSGI callable. Made at import; composed once per Gunicorn worker."""

    def __init__(self) -> None:
        self._composed: Any = None

    def compose(self) -> None:
        """Build the api. Called at import in a patched worker; StartRefused stops the server."""
        from tidegate.api import build_application
        from tidegate.telemetry.logs import configure_logging

        with launcher.refusals_end_the_process(gunicorn_guards.HALT):
            settings = prepare_home(os.environ)
            configure_logging(settings)
            self._composed = build_application(settings, boot.DRAIN)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request; StartRefused in a process that did not pass the boot."""
        # Asked for each request: a server that imports the module and never boots answers nothing
        # by half.
        if self._composed is None or boot.stage() is not boot.Stage.SERVING:
            raise StartRefused(f"this process did not pass Tidegate's boot: {_HINT}")
        answer: Iterable[bytes] = self._composed(environ, start_response)
        return answer


app = Application()
# Only in a worker that gevent patched: the master, a test and a REPL import it as well.
if boot.stage() is boot.Stage.PATCHED:
    app.compose()


def __getattr__(name: str) -> Any:
    """Only for ``celery -A tidegate.app.celery``, the name that Dify used to have."""
    if name == "celery":
        with launcher.refusals_end_the_process():
            raise StartRefused(
                "tidegate.app holds no Celery application: start with `tidegate worker` or "
                f"`tidegate beat` (celery -A {launcher.CELERY_APP})"
            )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
