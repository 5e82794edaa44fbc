"""Sending work to the worker by name. Whoever sends knows no task's code."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol, final

from celery import Celery
from kombu.exceptions import OperationalError

from tidegate.errors import BrokerUnavailable
from tidegate.jobs.broker import INSTALLS, celery_settings
from tidegate.settings import Settings

_RETRY = {"max_retries": 2, "interval_start": 0.1, "interval_step": 0.3, "interval_max": 0.5}


class JobSender(Protocol):
    """Whoever takes messages for the worker: :class:`Sender`, or a stand-in of ``testing``."""

    def send(self, task_name: str, *args: Any, queue: str = INSTALLS) -> None:
        """See :meth:`Sender.send`."""
        ...


@final
class Sender:
    """Puts messages on the broker's queues. One per process; opens nothing before the first."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def prepare(self) -> None:
        """Load what the first message needs: a tenth of a second that no request should pay.

        Called by roles that serve while they send, before they serve. Opens nothing.
        """
        self._app.finalize()
        _ = self._app.amqp.producer_pool, self._app.backend

    def send(self, task_name: str, *args: Any, queue: str = INSTALLS) -> None:
        """Queue ``task_name`` with plain JSON ``args``.

        Called after the rows that describe the job were committed. BrokerUnavailable when the
        broker cannot take it; the schedule finds the job's row all the same.
        """
        try:
            # By name: the api never imports the worker's code, nor what that would load.
            self._app.send_task(
                task_name, args=args, queue=queue, ignore_result=True, retry_policy=_RETRY
            )
        # Told to the caller, who must not fail for it: rows are committed, and the schedule sends
        # what was not.
        except OperationalError as error:
            raise BrokerUnavailable(
                f"the broker does not take jobs: {error}; the job waits for the schedule"
            ) from error

    def close(self) -> None:
        """Close the connections that were used, for processes that go on without them."""
        if "_app" in self.__dict__:
            self._app.pool.force_close_all()
            self._app.close()

    @cached_property
    def _app(self) -> Celery:
        # In the worker there is a current application already, whose tasks must not move to this
        # one.
        app = Celery("tidegate-sender", set_as_current=False)
        app.conf.update(celery_settings(self._settings))
        return app
