"""Make .venv from uv.lock: called by every target of the Makefile, does nothing when it is there.

    bootstrap.py run    what `make run` needs
    bootstrap.py dev    the same and the tools of `make test`, `make lint`, `make type`

Runs on any Python from 3.6 on, with the standard library only. The interpreter of .venv is a
Python 3.12 to 3.14 from PATH or from pyenv's versions (activated or not); without one, uv brings
3.12. uv itself is the one on PATH, else comes by pip into .boot/.
"""

import contextlib
import fcntl
import hashlib
import os
import pwd
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOOT = ROOT / ".boot"
VENV = ROOT / ".venv"
STAMP = VENV / "setup.stamp"
OLDEST, NEWEST = (3, 12), (3, 14)
LEAST_UV = (0, 8)
PROBE = (
    "import platform, sys, sysconfig\n"
    "fits = platform.python_implementation() == 'CPython' and sys.version_info[3] == 'final'\n"
    "fits = fits and not sysconfig.get_config_var('Py_GIL_DISABLED')\n"
    "print(fits and sys.version_info[0], sys.version_info[1])\n"
    "print(sys.executable)\n"
)


class SetupFailed(Exception):
    """One line that says what is wrong and what to do."""


def main():
    lane = sys.argv[1] if len(sys.argv) > 1 else "run"
    if lane not in ("run", "dev"):
        raise SetupFailed("scripts/bootstrap takes run or dev")
    if _done(lane):
        return
    try:
        BOOT.mkdir(exist_ok=True)
        lock = (BOOT / "lock").open("w")
    except OSError as error:
        raise SetupFailed(
            f"{ROOT} is not writable ({error.strerror}): clone it into a folder of yours"
        ) from None
    with lock:  # two makes at once in one checkout: the second waits and finds all done
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _done(lane):
            _set_up(lane)


def _set_up(lane):
    if STAMP.exists():
        _, lane_before, place = _stamp()
        if place != str(ROOT):
            shutil.rmtree(str(VENV))  # scripts in it name the folder that it was made in
        elif lane_before == "dev":
            lane = "dev"
    uv = _find_uv()
    environ = _uv_environ()
    say("2/3", "looking for Python 3.12 or newer")
    python = _venv_python() or _find_python()
    if python is None:
        say("2/3", "none here: uv brings Python 3.12")
        _run(
            [uv, "python", "install", "--no-bin", "3.12"],
            environ,
            "no Python 3.12 to 3.14 is here and uv could not fetch one: install it or check the "
            "network, then run make again",
        )
    say("3/3", "installing what uv.lock names into .venv")
    _sync(uv, python or "3.12", lane, environ)
    STAMP.write_text("\n".join((_wanted(), lane, str(ROOT))) + "\n")


def say(step, text):
    print(f"[setup {step}] {text}", file=sys.stderr, flush=True)


# --------------------------------------------------------------------------- is it there?


def _wanted():
    digest = hashlib.sha256()
    for name in ("uv.lock", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def _stamp():
    lines = [*STAMP.read_text().splitlines(), "", "", ""]
    return lines[0], lines[1], lines[2]


def _done(lane):
    if not STAMP.exists() or not os.access(str(VENV / "bin" / "python"), os.X_OK):
        return False
    digest, done, place = _stamp()
    return digest == _wanted() and place == str(ROOT) and done in (lane, "dev")


# --------------------------------------------------------------------------- uv


def _find_uv():
    found = shutil.which("uv")
    if found and _uv_version(found) >= LEAST_UV:
        return found
    ours = BOOT / "uv"
    if not ours.exists():
        say("1/3", "getting uv by pip into .boot")
        _install_uv()
    if _uv_version(str(ours)) < LEAST_UV:
        raise SetupFailed(
            "uv does not run here: install uv 0.9 or newer on PATH, then run make again"
        )
    return str(ours)


def _uv_version(path):
    match = re.match(r"uv (\d+)\.(\d+)", _output([path, "--version"]))
    return tuple(int(part) for part in match.groups()) if match else (0, 0)


def _install_uv():
    """The binary out of its wheel: so an old Python, which uv does not support, can fetch it."""
    pin = re.search(r'\nname = "uv"\nversion = "([^"]+)"', (ROOT / "uv.lock").read_text())
    wheels = BOOT / "wheels"
    command = [*_pip(), "download", "--quiet", "--no-deps", "--dest", str(wheels)]
    command += ["--only-binary", ":all:", "--python-version", "3.12", "--implementation", "py"]
    if os.environ.get("SSL_CERT_FILE") and not os.environ.get("PIP_CERT"):
        command += ["--cert", os.environ["SSL_CERT_FILE"]]
    _run(
        [*command, "uv==" + pin.group(1)],
        dict(
            os.environ,
            PIP_DISABLE_PIP_VERSION_CHECK="1",
            PIP_CACHE_DIR=os.environ.get("PIP_CACHE_DIR") or str(BOOT / "pip-cache"),
        ),
        "pip could not fetch uv: check the network, proxy or PIP_INDEX_URL, then run make again",
    )
    with zipfile.ZipFile(str(next(wheels.glob("uv-*.whl")))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith("/scripts/uv"))
        part = BOOT / "uv.part"
        part.write_bytes(wheel.read(name))
    part.chmod(0o755)
    part.rename(BOOT / "uv")
    for folder in (wheels, BOOT / "pip-cache"):
        shutil.rmtree(str(folder), ignore_errors=True)


def _pip():
    python = str(BOOT / "python" / "bin" / "python")
    with open(os.devnull, "w") as nowhere:
        made = subprocess.call(
            [sys.executable, "-m", "venv", "--clear", str(BOOT / "python")], stderr=nowhere
        )
    if made == 0:
        return _new_enough_pip(python)
    if _output([sys.executable, "-m", "pip", "--version"]):
        return [sys.executable, "-m", "pip"]
    raise SetupFailed(
        f"{sys.executable} has no working venv: install it (Debian: python3-venv), "
        "then run make again"
    )


def _new_enough_pip(python):
    """pip before 20.3 cannot read the names of today's Linux wheels."""
    match = re.match(r"pip (\d+)", _output([python, "-m", "pip", "--version"]))
    if match and int(match.group(1)) < 21:
        _run(
            [python, "-m", "pip", "install", "--quiet", "--upgrade", "pip"],
            dict(os.environ),
            "pip could not renew itself: check the network or proxy, then run make again",
        )
    return [python, "-m", "pip"]


def _uv_environ():
    """The environment for uv: the system's certificates, and nothing of another project's."""
    environ = dict(os.environ)
    for name in (
        "VIRTUAL_ENV",
        "UV_PROJECT_ENVIRONMENT",
        "UV_FIND_LINKS",
        "UV_PYTHON",
        "UV_NO_SYNC",
    ):
        environ.pop(name, None)
    if _has_system_certificates():
        environ.setdefault("UV_SYSTEM_CERTS", "1")
    if not _home_is_writable():
        environ.setdefault("UV_CACHE_DIR", str(BOOT / "cache"))
        environ.setdefault("UV_PYTHON_INSTALL_DIR", str(BOOT / "pythons"))
    return environ


def _has_system_certificates():
    places = (
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
    )
    return any(os.path.exists(place) for place in places)


def _home_is_writable():
    home = os.environ.get("HOME", "")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    return bool(home) and os.access(cache if os.path.isdir(cache) else home, os.W_OK)


# --------------------------------------------------------------------------- Python


def _venv_python():
    """The interpreter that .venv has already, if it fits."""
    python = str(VENV / "bin" / "python")
    return python if _fits(python) else None


def _find_python():
    for candidate in _candidates():
        real = _fits(candidate)
        if real:
            return real
    return None


def _candidates():
    folders = [one for one in os.environ.get("PATH", "").split(os.pathsep) if one]
    folders += ["/usr/local/bin", "/usr/bin"]
    names = [f"python3.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1)]
    for name in [*names, "python3", "python"]:
        for folder in folders:
            path = os.path.join(folder, name)
            if not path.startswith(str(VENV)) and os.access(path, os.X_OK):
                yield path
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        for root in _pyenv_roots(folders):
            with contextlib.suppress(OSError):  # another user's folder
                for path in sorted(root.glob(f"versions/3.{minor}.*/bin/python3")):
                    yield str(path)


def _pyenv_roots(folders):
    """Where pyenv keeps its versions: named, in the home, or told by its own entries on PATH."""
    homes = [os.environ.get("HOME") or "/", pwd.getpwuid(os.getuid()).pw_dir]
    roots = [os.environ.get("PYENV_ROOT"), *(os.path.join(home, ".pyenv") for home in homes)]
    for folder in folders:
        if os.path.basename(folder) == "shims" or os.access(os.path.join(folder, "pyenv"), os.X_OK):
            roots.append(os.path.dirname(folder))
    return [Path(root) for root in roots if root]


def _fits(path):
    """The real path of an interpreter that .venv can use; None when it is none (a failing shim)."""
    lines = _output([path, "-c", PROBE]).splitlines()
    match = re.match(r"3 (\d+)$", lines[0]) if len(lines) == 2 else None
    if match and OLDEST <= (3, int(match.group(1))) <= NEWEST:
        return lines[1]
    return None


# --------------------------------------------------------------------------- installing


def _sync(uv, python, lane, environ):
    choice = [] if lane == "dev" else ["--no-dev"]
    if shutil.which("cc", path=environ.get("PATH")):
        # Parts in C that come as source: worth a try, not worth a failure.
        if _install(uv, python, ["--extra", "fast", *choice], environ):
            return
        say("3/3", "the parts in C could not be built here: going on without them")
    if not _install(uv, python, choice, environ):
        raise SetupFailed("uv could not make .venv (its own words stand above)" + _hint())


def _install(uv, python, choice, environ):
    """Bring .venv to what uv.lock says; False when a step failed."""
    index = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
    mirror = next((environ[name] for name in index if environ.get(name)), None)
    if mirror is None:
        return _call([uv, "sync", "--frozen", "--python", python, *choice], environ)
    # uv.lock names the public index's files; a site with an index of its own takes them from there,
    # held to the same hashes.
    listed = str(BOOT / "requirements.txt")
    export = [uv, "export", "--quiet", "--frozen", "--no-emit-project", "--output-file", listed]
    steps = [[*export, *choice]]
    if not _venv_python():
        steps.append([uv, "venv", "--quiet", "--clear", "--python", python, str(VENV)])
    install = [uv, "pip", "install", "--python", str(VENV / "bin" / "python")]
    install += ["--default-index", mirror]
    steps.append([*install, "--require-hashes", "-r", listed])
    steps.append([*install, "--no-deps", "--editable", str(ROOT)])
    return all(_call(step, environ) for step in steps)


def _hint():
    free = shutil.disk_usage(str(ROOT)).free >> 20
    if free < 600:
        return f": the disk has only {free} MB free, make room and run make again"
    return ": check the network, proxy or certificates (SSL_CERT_FILE), then run make again"


def _run(command, environ, failed):
    if not _call(command, environ):
        raise SetupFailed(failed)


def _call(command, environ):
    return subprocess.call(command, env=environ, cwd=str(ROOT), stdin=subprocess.DEVNULL) == 0


def _output(command):
    """What a command prints; nothing when it fails, does not exist or hangs."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


if __name__ == "__main__":
    try:
        main()
    except SetupFailed as error:
        sys.exit(f"setup: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
