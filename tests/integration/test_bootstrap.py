"""The bootstrap finds what it needs on machines that are not ours."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
REAL = os.path.realpath(sys.executable)


def _script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """bootstrap.py as a module, for a checkout of its own, on a machine with nothing on PATH."""
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "scripts" / "bootstrap.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name, folder in {"ROOT": "", "BOOT": ".boot", "VENV": ".venv"}.items():
        monkeypatch.setattr(module, name, checkout / folder)
    monkeypatch.setattr(module, "STAMP", checkout / ".venv" / "setup.stamp")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    monkeypatch.setattr(module.pwd, "getpwuid", lambda _: _Nobody(tmp_path))
    return module


class _Nobody:
    def __init__(self, folder: Path) -> None:
        self.pw_dir = str(folder / "nobody")


def _only_here(module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Candidates of this test, without those of the machine that it runs on."""
    return [path for path in module._candidates() if path.startswith(str(tmp_path))]


def test_a_shim_that_fails_is_passed_over(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _script(
        tmp_path / "bin" / "python3.12", "echo 'pyenv: python3.12: command not found'; exit 127"
    )
    good = tmp_path / "bin" / "python3"
    good.symlink_to(REAL)
    candidates = _only_here(bootstrap, monkeypatch, tmp_path)
    assert candidates == [str(tmp_path / "bin" / "python3.12"), str(good)]
    assert [bool(bootstrap._fits(path)) for path in candidates] == [False, True]


@pytest.mark.parametrize(
    "says",
    ["3 11\n/usr/bin/python3", "3 15\n/usr/bin/python3", "False 12\n/usr/bin/pypy3", "", "hello"],
)
def test_an_interpreter_that_does_not_fit_is_none(
    bootstrap: ModuleType, tmp_path: Path, says: str
) -> None:
    python = _script(tmp_path / "bin" / "python3", f"printf '{says}'")
    assert bootstrap._fits(str(python)) is None


@pytest.mark.parametrize("where", ["PYENV_ROOT", "HOME", "shims on PATH", "home of the user"])
def test_a_pyenv_that_is_not_activated_is_found(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    root = {
        "HOME": tmp_path / "home" / ".pyenv",
        "home of the user": tmp_path / "nobody" / ".pyenv",
    }
    pyenv = root.get(where, tmp_path / "pyenv")
    python = pyenv / "versions" / "3.12.1" / "bin" / "python3"
    python.parent.mkdir(parents=True)
    python.symlink_to(REAL)
    if where == "PYENV_ROOT":
        monkeypatch.setenv("PYENV_ROOT", str(pyenv))
    if where == "shims on PATH":
        _script(pyenv / "shims" / "python3", "exit 127")
        monkeypatch.setenv("PATH", str(pyenv / "shims"))
    assert str(python) in _only_here(bootstrap, monkeypatch, tmp_path)
    assert bootstrap._fits(str(python))


def test_a_hanging_or_missing_program_says_nothing(bootstrap: ModuleType, tmp_path: Path) -> None:
    assert bootstrap._output([str(tmp_path / "nowhere")]) == ""


def test_the_stamp_makes_the_second_time_free(bootstrap: ModuleType, tmp_path: Path) -> None:
    for name in ("uv.lock", "pyproject.toml"):
        (bootstrap.ROOT / name).write_text(name)
    python = bootstrap.VENV / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(REAL)
    assert not bootstrap._done("run")
    bootstrap.STAMP.write_text("\n".join((bootstrap._wanted(), "dev", str(bootstrap.ROOT))))
    assert bootstrap._done("run")
    assert bootstrap._done("dev")
    bootstrap.STAMP.write_text("\n".join((bootstrap._wanted(), "run", str(bootstrap.ROOT))))
    assert not bootstrap._done("dev"), "tests need more than a run"
    (bootstrap.ROOT / "uv.lock").write_text("newer")
    assert not bootstrap._done("run")


def test_an_environment_that_was_moved_is_made_anew(bootstrap: ModuleType) -> None:
    for name in ("uv.lock", "pyproject.toml"):
        (bootstrap.ROOT / name).write_text(name)
    (bootstrap.VENV / "bin").mkdir(parents=True)
    (bootstrap.VENV / "bin" / "python").symlink_to(REAL)
    bootstrap.STAMP.write_text("\n".join((bootstrap._wanted(), "dev", "/somewhere/else")))
    assert not bootstrap._done("run")


def test_uv_gets_certificates_and_no_foreign_environment(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", "/other")
    monkeypatch.setenv("UV_FIND_LINKS", "/wheels")
    monkeypatch.setenv("SSL_CERT_FILE", "/site.pem")
    monkeypatch.setattr(bootstrap, "_has_system_certificates", lambda: True)
    environ = bootstrap._uv_environ()
    assert environ["UV_SYSTEM_CERTS"] == "1"
    assert environ["SSL_CERT_FILE"] == "/site.pem"
    assert not {"VIRTUAL_ENV", "UV_FIND_LINKS"} & set(environ)
    assert environ["UV_CACHE_DIR"].startswith(str(bootstrap.BOOT)), "the home is not there"


def _front(tmp_path: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(ROOT / "scripts" / "bootstrap"), *arguments],
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_front_passes_over_pythons_that_do_not_run(tmp_path: Path) -> None:
    _script(tmp_path / "bin" / "python3", "exit 127")
    _script(tmp_path / "bin" / "python", "exit 127")
    done = _front(tmp_path, "nonsense", PYENV_ROOT=str(Path(REAL).parents[3]))
    assert done.returncode == 1
    assert done.stderr == "setup: scripts/bootstrap takes run or dev\n"


def test_without_any_python_one_line_says_what_to_install(tmp_path: Path) -> None:
    front = (ROOT / "scripts" / "bootstrap").read_text()
    copy = tmp_path / "scripts" / "bootstrap"
    copy.parent.mkdir()
    copy.write_text(front.replace("/usr/bin/python3 /usr/local/bin/python3", ""))
    (tmp_path / "bin").mkdir()
    for tool in ("dirname",):
        (tmp_path / "bin" / tool).symlink_to(f"/usr/bin/{tool}")
    done = subprocess.run(
        ["/bin/sh", str(copy), "run"],
        env={"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "install python3" in done.stderr
