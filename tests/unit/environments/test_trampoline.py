"""The view of the file system that the trampoline makes, for root and for a plain user."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tidegate.environments import child
from tidegate.hosts import views

# Its text and not its path: a plain user may not be able to read in the folder of a checkout.
TRAMPOLINE = Path(child.__file__).with_name("trampoline.py").read_text("utf-8")
ROOT = os.getuid() == 0
NOBODY = 65534
# A plain user's interpreter: this one may lie in the home of root.
PYTHON = "/usr/bin/python3" if ROOT and Path("/usr/bin/python3").exists() else sys.executable


def run(script, view, *, limits="", plain=False):
    """What ``script`` says behind a view."""
    other = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if plain and ROOT else {}
    done = subprocess.run(
        [PYTHON, "-I", "-S", "-c", LAUNCH, TRAMPOLINE, limits, "\n".join(view), script],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
        **other,
    )
    return (done.stdout + done.stderr).split("\n")[:-1]


# The trampoline wants its parent's number, which only a parent of its own knows.
LAUNCH = """
import fcntl, subprocess, sys, os
trampoline, limits, view, script = sys.argv[1:]
words = [sys.executable, "-I", "-S", "-c", trampoline, str(os.getpid()), "/", limits, view]
report, told = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in os.pipe()]
os.dup2(told, 3)
first = subprocess.Popen([*words, "/bin/sh", "-c", script], pass_fds=(3,))
first.wait()
os.closerange(3, 10)
os.close(told)
numbers = os.read(report, 99).split()
program = os.waitpid(int(numbers[1]), 0)[1] if numbers else 0
code = os.waitstatus_to_exitcode(program) if numbers else first.returncode
print(f"exit {code}") if numbers and code else None
"""


@pytest.fixture
def folder():
    """A folder that everybody can reach, with something to see and something to hide."""
    made = Path(tempfile.mkdtemp(prefix="tidegate-view-", dir="/var/tmp"))
    for name in ("own", "shared", "other"):
        (made / name).mkdir(parents=True)
        (made / name / "file").write_text(name)
    for path in (made, *made.iterdir()):
        path.chmod(0o777)
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("plain", [False, True], ids=["own user", "plain user"])
def test_what_is_hidden_is_gone_and_what_is_shown_again_is_there(folder, plain):
    view = [f"h {folder}", f"w {folder}/own", f"r {folder}/shared", f"l {folder}/link\town/file"]
    script = (
        f"cd {folder}; ls | sort | tr '\\n' ' '; cat own/file shared/file link; echo;"
        "echo new > own/new && echo written; echo new > shared/new || echo refused"
    )
    said = run(script, view, plain=plain)
    assert said[0] == "link own shared ownsharedown"
    assert said[1] == "written"
    assert "refused" in said
    assert (folder / "own/new").read_text() == "new\n"
    assert not (folder / "shared/new").exists()
    assert (folder / "other/file").exists(), "outside nothing changed"


@pytest.mark.parametrize("plain", [False, True], ids=["own user", "plain user"])
def test_in_a_root_of_its_own_nothing_is_there_but_what_is_shown(folder, plain):
    view = views.only({folder / "own": "w", folder / "shared": "r"}, folder / "other")
    script = (
        f"ls {folder} | tr '\n' ' '; cat /tmp/file; echo; cd {folder};"
        "echo new > own/new && echo written; echo new > shared/new || echo refused;"
        "echo new > /new || echo refused; ls / | tr '\n' ' '; echo; ls /run /home /root"
    )
    said = run(script, view, plain=plain)
    assert said[0] == "own shared other"
    assert said[1] == "written"
    assert said.count("refused") == 2
    assert "bin dev etc" in " ".join(said)
    assert sum("No such file" in line for line in said) == 3
    assert (folder / "own/new").exists()


@pytest.mark.parametrize("plain", [False, True], ids=["own user", "plain user"])
def test_in_a_process_namespace_it_is_not_process_1_and_ends_as_any_child(folder, plain):
    view = views.only({}, folder / "other")
    said = run("echo $$ $(ls /proc | grep -c '^[0-9]'); kill -TERM $$", view, plain=plain)
    assert said[0].split()[0] == "2"
    assert int(said[0].split()[1]) < 8
    assert said[-1] == "exit -15", "the kernel would spare process 1"
    assert run("exit 7", view, plain=plain) == ["exit 7"]
    assert run("kill -KILL 1; echo alive", view, plain=plain) == ["alive"]


@pytest.mark.parametrize("plain", [False, True], ids=["own user", "plain user"])
def test_T_S20_system_calls_that_lead_out_are_refused_and_threads_are_not(folder, plain):
    view = views.only({}, folder / "other")
    script = "unshare -U true; python3 -c 'import threading as t; t.Thread(target=print).start()'"
    said = run(f"{script} && echo threads", view, plain=plain)
    assert "unshare: unshare failed: Operation not permitted" in said
    assert "threads" in said


@pytest.mark.parametrize("plain", [False, True], ids=["own user", "plain user"])
def test_no_privileges_can_be_gained_and_a_plain_user_has_none(plain):
    said = run("grep -E 'NoNewPrivs|CapEff' /proc/self/status", ["t /tmp"], plain=plain)
    assert "NoNewPrivs:\t1" in said
    if plain:
        assert "CapEff:\t0000000000000000" in said


def test_a_private_tmp_is_empty_and_can_be_written(folder):
    assert run("ls /tmp; echo x > /tmp/x && cat /tmp/x", ["t /tmp"]) == ["x"]


def test_a_cgroup_is_joined_first(folder):
    (folder / "cgroup.procs").touch(0o666)
    (folder / "cgroup.procs").chmod(0o666)
    assert run("echo started", [f"c {folder}"]) == ["started"]
    assert (folder / "cgroup.procs").read_text() == "0"


def test_what_cannot_be_done_is_said_in_one_line(folder):
    said = run("echo started", [f"h {folder}/missing"])
    assert len(said) == 1
    assert said[0].startswith("cannot start /bin/sh: ")
    assert "missing" in said[0]
