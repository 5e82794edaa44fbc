"""A worker that stops does not wait for messages that it would not take."""

from __future__ import annotations

from time import monotonic

import gevent
import pytest
from kombu import Connection

from tests.patience import patience
from tidegate.jobs import celery_settings, stop_waiting
from tidegate.jobs.transport import Transport
from tidegate.settings import Settings


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A queue of the embedded broker. Stopping is for good, so it is taken back afterwards."""
    monkeypatch.setattr(Transport, "_stopping", False)
    settings = Settings.load({"TIDEGATE_HOME": str(tmp_path)})
    with Connection(celery_settings(settings)["broker_url"]) as connection:
        yield connection.SimpleQueue("jobs")


def test_a_waiting_consumer_looks_up_when_the_worker_stops(queue):
    """Celery waits two seconds in each look: a worker took three to stop (issue 5 section 4)."""
    waiting = gevent.spawn(
        pytest.raises, TimeoutError, queue.channel.connection.client.drain_events, timeout=30
    )
    gevent.sleep()
    began = monotonic()
    stop_waiting()
    waiting.get(timeout=5)
    assert monotonic() - began < patience(1)


def test_a_message_that_is_there_is_kept_for_the_next_worker(queue):
    queue.put({"job": 1})
    stop_waiting()
    message = queue.get(timeout=5)
    assert message.payload == {"job": 1}
    message.requeue()
    assert queue.qsize() == 1
