"""Which process belongs to whom, and who is killed."""

import os
import signal
import subprocess
import sys

import gevent
import pytest

from tests.runtime.processes import gone, runs
from tidegate.hosts.processes import Families, Process, holds, kill, look_at, scan


def process(pid, parent=1, session=0, started=0, state="S"):
    return Process(pid, state, parent, session or pid, 0.0, 0, started or pid)


def table(*processes):
    return {one.pid: one for one in processes}


def members(families, leader):
    return sorted(one.pid for one in families[leader])


def test_a_family_is_the_session_and_all_that_descends_from_it():
    found = Families().sort(
        table(
            process(1, parent=0),
            process(10),  # the host
            process(20, parent=10),
            process(21, parent=20, session=20),
            process(22, parent=21, session=22),  # left the session
            process(23, parent=22, session=23),
            process(30, parent=10),
            process(31, parent=30, session=30, state="Z"),
            process(99),
        ),
        [20, 30],
    )
    assert members(found, 20) == [20, 21, 22, 23]
    assert members(found, 30) == [30]


def test_who_was_seen_in_a_family_belongs_to_it_when_its_parents_are_gone():
    families = Families()
    child, grandchild = process(22, parent=20, session=22), process(23, parent=22, session=22)
    families.sort(table(process(20), child, grandchild), [20])
    orphan = process(23, parent=1, session=22)
    assert members(families.sort(table(process(20), orphan), [20]), 20) == [20, 23]
    assert families.orphans_of(20, table(orphan)) == [orphan]
    families.forget(20)
    assert families.orphans_of(20, table(orphan)) == []


def test_T_K6_a_number_that_came_again_is_another_process():
    families = Families()
    families.sort(table(process(20), process(22, parent=20, session=22)), [20])
    stranger = process(22, parent=1, session=22, started=5000)
    assert members(families.sort(table(process(20), stranger), [20]), 20) == [20]


def test_T_K6_who_got_the_number_of_a_dead_leader_is_left_alone_with_his_family():
    families = Families()
    child = process(22, parent=20, session=22)
    families.sort(table(process(20), child), [20])
    stranger, his_child = process(20, started=7000), process(31, parent=20, session=20)
    assert families.orphans_of(20, table(stranger, his_child, child)) == [child]


@pytest.fixture
def sleeper():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield child
    child.kill()
    child.wait()
    child.stdin.close()


def test_T_K6_only_the_process_that_was_meant_is_killed(sleeper):
    seen = look_at(sleeper.pid)
    kill([Process(seen.pid, "S", seen.parent, seen.session, 0.0, 0, seen.started + 1)])
    gevent.sleep(0.1)
    assert runs(sleeper.pid)
    kill([seen])
    assert gone([sleeper.pid])
    assert sleeper.wait() == -signal.SIGKILL


def test_who_holds_the_other_end_of_a_pipe(sleeper):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pipe = sleeper.stdin.fileno()
    assert holds(sleeper.pid, pipe)
    assert not holds(other.pid, pipe)
    other.communicate()
    assert holds(other.pid, pipe), "nobody can tell of who is gone"


def test_a_scan_sees_this_process_and_nothing_that_is_gone():
    own = scan()[os.getpid()]
    assert own.parent == os.getppid()
    assert own.memory > 1 << 20
    assert own.alive
    assert look_at(1 << 22) is None
