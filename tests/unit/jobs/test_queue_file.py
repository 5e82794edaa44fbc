"""Messages stay until they are dealt with, in order, whoever dies."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import gevent
import pytest

from tidegate.jobs import queue_file
from tidegate.jobs.queue_file import QueueFile

HOLDER = """
import os, sys, time
from pathlib import Path
from tidegate.jobs.queue_file import QueueFile
file = QueueFile.at(Path(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    assert file.take("q")
print(file._owners.me, flush=True)
if "fork" in sys.argv[3:]:
    child = os.fork()
    if child == 0:
        print("child", os.getpid(), flush=True)
        os.close(1)
        sys.stdin.read()
        os._exit(0)
sys.stdin.read()
"""


def put(file: QueueFile, *tags: str, queue: str = "q", rank: int = 0) -> None:
    for tag in tags:
        file.put(queue, tag, tag, rank=rank)


def take_all(file: QueueFile, queue: str = "q") -> list[str]:
    bodies = []
    while taken := file.take(queue):
        bodies.append(taken.body)
    return bodies


def holder(path: Path, count: int, *more: str) -> subprocess.Popen[str]:
    """Another process that was handed ``count`` messages and keeps them."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), str(count), *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], *, kill: bool = True) -> None:
    if kill:
        process.kill()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.wait()
    process.stdout.close()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def look_now(file: QueueFile) -> None:
    """The next use looks for the dead again, without waiting for the second to pass."""
    file._next_look = 0.0


def test_messages_come_in_the_order_they_were_put(file: QueueFile) -> None:
    put(file, "a", "b", "c")
    assert take_all(file) == ["a", "b", "c"]


def test_lower_rank_goes_first(file: QueueFile) -> None:
    put(file, "later", rank=9)
    put(file, "now", rank=0)
    assert take_all(file) == ["now", "later"]


def test_queues_do_not_mix(file: QueueFile) -> None:
    put(file, "a", queue="one")
    assert file.take("two") is None
    assert file.size("one") == 1


def test_a_taken_message_is_nobody_elses_and_goes_when_done(file: QueueFile) -> None:
    put(file, "a")
    assert file.take("q") is not None
    assert file.take("q") is None
    assert file.size("q") == 0
    file.done("a")
    file.give_back(["a"])
    assert file.take("q") is None


def test_what_is_given_back_has_its_old_place_and_is_marked(file: QueueFile) -> None:
    put(file, "a", "b", "c")
    first, second = file.take("q"), file.take("q")
    assert first is not None
    assert second is not None
    assert not first.returned
    file.give_back(["b"])
    file.give_back(["a"])
    again = file.take("q")
    assert again is not None
    assert (again.body, again.returned) == ("a", True)
    assert take_all(file) == ["b", "c"]


def test_a_consumer_that_never_acknowledges_leaves_no_row(file: QueueFile) -> None:
    put(file, "a")
    taken = file.take("q", keep=False)
    assert taken is not None
    assert file._do("select count(*) from message") == [(0,)]


def test_purge_leaves_what_somebody_works_on(file: QueueFile) -> None:
    put(file, "held", "b", "c")
    file.take("q")
    assert file.purge("q") == 2
    file.give_back(["held"])
    assert take_all(file) == ["held"]


def test_an_expired_message_is_not_delivered_and_goes(file: QueueFile) -> None:
    file.put("q", "old", "old", expires_at=time.time() - 1)
    file.put("q", "new", "new", expires_at=time.time() + 60)
    assert take_all(file) == ["new"]
    look_now(file)
    file.take("q")
    assert file._do("select tag from message") == [("new",)]


def test_a_queue_nobody_reads_goes_with_its_bindings(file: QueueFile) -> None:
    file.bind("replies", "me", "", "reply", mine=True)
    file.unread("reply", 10.0)
    put(file, "late", queue="reply")
    file.unread("reply", -1.0)
    look_now(file)
    file.take("q")
    assert file.bindings("replies") == []
    assert file.size("reply") == 0


def test_a_queue_that_is_read_stays(file: QueueFile) -> None:
    file.bind("replies", "me", "", "reply", mine=True)
    file.unread("reply", -1.0)
    file.read("reply")
    look_now(file)
    file.take("reply")
    assert file.bindings("replies") == [("me", "", "reply")]


@pytest.mark.blocks_hub("starts processes")
def test_the_messages_of_a_killed_process_come_back_in_order(file: QueueFile, path: Path) -> None:
    put(file, "a", "b", "c")
    other = holder(path, 2)
    owner = said(other)
    assert take_all(file) == ["c"]
    end(other)
    look_now(file)
    assert take_all(file) == ["a", "b"]
    assert owner not in " ".join(os.listdir(f"{path}.d"))


@pytest.mark.blocks_hub("starts processes")
def test_two_processes_that_die_at_once_lose_nothing(file: QueueFile, path: Path) -> None:
    put(file, *"abcdef")
    others = [holder(path, 3), holder(path, 3)]
    for other in others:
        said(other)
    assert take_all(file) == []
    for other in others:
        other.kill()
    for other in others:
        end(other)
    look_now(file)
    assert take_all(file) == list("abcdef")


@pytest.mark.blocks_hub("starts processes")
def test_a_child_forked_without_exec_does_not_keep_its_dead_parents_messages(
    file: QueueFile, path: Path
) -> None:
    put(file, "a")
    other = holder(path, 1, "fork")
    said(other)
    assert said(other).startswith("child")
    other.kill()
    other.wait()
    look_now(file)
    assert take_all(file) == ["a"]
    end(other)


@pytest.mark.blocks_hub("starts processes")
def test_an_orderly_exit_gives_everything_back_and_leaves_no_files(
    file: QueueFile, path: Path
) -> None:
    put(file, "a", "b")
    file._owners.join()
    other = holder(path, 1)
    owner = said(other)
    end(other, kill=False)
    assert other.returncode == 0
    assert owner not in " ".join(os.listdir(f"{path}.d"))
    assert take_all(file) == ["a", "b"]


@pytest.mark.blocks_hub("starts processes")
def test_a_living_process_keeps_what_it_works_on(file: QueueFile, path: Path) -> None:
    put(file, "a")
    other = holder(path, 1)
    said(other)
    look_now(file)
    assert take_all(file) == []
    end(other)


def test_rows_of_an_owner_without_a_lock_file_come_back(file: QueueFile) -> None:
    put(file, "a")
    file._do("update message set owner='a backup from elsewhere'")
    look_now(file)
    assert take_all(file) == ["a"]


def test_a_locked_file_is_waited_for_in_gevent(file: QueueFile, path: Path) -> None:
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("begin immediate")
    writer = gevent.spawn(put, file, "a")
    gevent.sleep(0.05)  # the hub runs: the writer waits without SQLite's own sleep
    assert not writer.ready()
    blocker.execute("commit")
    blocker.close()
    writer.get(timeout=5)
    assert take_all(file) == ["a"]


def test_two_that_open_a_locked_file_at_once_get_the_same_one(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("begin immediate")
    opening = [gevent.spawn(QueueFile.at, path) for _ in range(2)]
    gevent.sleep(0.05)
    assert not any(one.ready() for one in opening), "both are at it"
    blocker.execute("commit")
    blocker.close()
    first, second = [one.get(timeout=5) for one in opening]
    assert first is second
    put(first, "a")
    assert take_all(second) == ["a"]
    first.close()


def test_a_file_that_stays_locked_is_an_error(
    file: QueueFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_file, "LOCK_LIMIT", 0.02)
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("begin immediate")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        put(file, "a")
    blocker.close()


def test_a_failing_transaction_leaves_the_connection_usable(file: QueueFile) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        file._together([("delete from nowhere", ())])
    put(file, "a")
    assert take_all(file) == ["a"]


def test_the_log_of_the_file_stays_small(file: QueueFile, path: Path) -> None:
    for number in range(3000):
        file._do(
            "insert into message(queue, tag, rank, body) values('q', ?, 0, ?)",
            (str(number), "x" * 2000),
        )
    wal = path.with_name("broker.db-wal")
    assert wal.stat().st_size <= 17 << 20


def test_a_waiting_greenlet_is_woken_by_a_message(file: QueueFile) -> None:
    file._owners.join()
    waiters = [gevent.spawn(file.wait, 30.0) for _ in range(3)]
    gevent.sleep(0)
    gevent.sleep(0)
    put(file, "a")
    gevent.joinall(waiters, timeout=5)
    assert all(waiter.ready() for waiter in waiters)


def test_a_folder_deeper_than_a_socket_address_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120) / "broker.db"
    file = QueueFile.at(deep)
    file._owners.join()
    waiter = gevent.spawn(file.wait, 30.0)
    gevent.sleep(0)
    gevent.sleep(0)
    put(file, "a")
    waiter.join(timeout=5)
    assert waiter.ready()


def test_one_file_is_opened_once_whatever_its_spelling(file: QueueFile, path: Path) -> None:
    assert QueueFile.at(path.parent / "x" / ".." / "broker.db") is file
