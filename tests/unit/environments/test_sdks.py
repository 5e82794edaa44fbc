"""SDKs are mended by their installed version: the old ones more than the newer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate.environments.sdks import mend_sdk

MODULES = {
    "core/server/stdio/request_reader.py": (
        "asked = []\n"
        "def tp_read(descriptor, size):\n"
        "    asked.append(size)\n"
        "    return b''\n"
        "def read():\n"
        "    return tp_read(0, 512)\n"
    ),
    "entities/model/llm.py": (
        "class LLMResultChunk:\n"
        "    def __init__(self, **data):\n"
        "        self.data = data\n"
        "class LLMResult(LLMResultChunk):\n"
        "    def __init__(self, **data):\n"
        "        self.data = data\n"
    ),
    "interfaces/model/ai_model.py": (
        "class AIModel:\n    def _get_num_tokens_by_gpt2(self, text):\n        return -1\n"
    ),
}
USE = """
import json, site, sys
site.addsitedir(sys.argv[1])
from dify_plugin.core.server.stdio import request_reader
from dify_plugin.entities.model.llm import LLMResult, LLMResultChunk
from dify_plugin.interfaces.model.ai_model import AIModel
request_reader.read()
print(json.dumps({
    "read": request_reader.asked,
    "chunk": LLMResultChunk(model="m", prompt_messages=[1, 2]).data,
    "result": LLMResult(model="m", prompt_messages=[1, 2]).data,
    "counts": [AIModel()._get_num_tokens_by_gpt2("x" * n) for n in (5, 100_000)],
}))
"""


def _environment(folder: Path, version: str, modules: dict[str, str]) -> Path:
    site = folder / "lib/python3.12/site-packages"
    (site / f"dify_plugin-{version}.dist-info").mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: dify_plugin\nVersion: {version}\n\nVersion: 9\n"
    (site / f"dify_plugin-{version}.dist-info/METADATA").write_text(metadata)
    for name, text in modules.items():
        path = site / "dify_plugin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for parent in path.relative_to(site).parents:
            if parent.parts:
                (site / parent / "__init__.py").touch()
    return site


def _use(site: Path) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", USE, str(site)], capture_output=True, text=True, check=True
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("version", ["0.0.1b69", "0.0.1b76", "0.1.0"])
@pytest.mark.blocks_hub("starts a process")
def test_what_hurts_in_an_old_one_is_wrapped(tmp_path: Path, version: str) -> None:
    site = _environment(tmp_path, version, MODULES)
    told: list[str] = []
    mended = mend_sdk(tmp_path, lambda _step, text: told.append(text))
    assert str(mended) == version
    assert version in told[0]
    assert _use(site) == {
        "read": [65536],
        "chunk": {"model": "m", "prompt_messages": []},
        "result": {"model": "m", "prompt_messages": []},
        "counts": [-1, 100_000],
    }


@pytest.mark.parametrize("version", ["0.1.1", "0.9.0", "0.10.2"])
@pytest.mark.blocks_hub("starts a process")
def test_what_is_good_in_a_newer_one_is_left_alone(tmp_path: Path, version: str) -> None:
    site = _environment(tmp_path, version, MODULES)
    told: list[str] = []
    assert str(mend_sdk(tmp_path, lambda _step, text: told.append(text))) == version
    assert told == []
    assert _use(site) == {
        "read": [512],
        "chunk": {"model": "m", "prompt_messages": [1, 2]},
        "result": {"model": "m", "prompt_messages": [1, 2]},
        "counts": [-1, -1],
    }


@pytest.mark.blocks_hub("starts a process")
def test_an_old_one_of_another_shape_still_starts(tmp_path: Path) -> None:
    site = _environment(tmp_path, "0.0.1b1", dict.fromkeys(MODULES, "here = True\n"))
    mend_sdk(tmp_path, lambda *_: None)
    script = (
        f"import site; site.addsitedir({str(site)!r})\n"
        "from dify_plugin.core.server.stdio.request_reader import here\n"
        "from dify_plugin.entities.model.llm import here\n"
        "from dify_plugin.interfaces.model.ai_model import here\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_an_environment_without_the_sdk_needs_nothing(tmp_path: Path) -> None:
    (tmp_path / "lib/python3.12/site-packages").mkdir(parents=True)
    assert mend_sdk(tmp_path, lambda *_: None) is None
    broken = tmp_path / "lib/python3.12/site-packages/dify_plugin-x.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Version: not a version\n\n")
    assert mend_sdk(tmp_path, lambda *_: None) is None


def test_a_link_left_by_what_was_installed_is_not_followed(tmp_path: Path) -> None:
    """The host writes these as who it is, also where packages are built by other users."""
    other = tmp_path / "others"
    other.write_text("kept")
    environment = tmp_path / "environment"
    site = _environment(environment, "0.9.0", MODULES)
    (site / "tidegate_mending.pth").symlink_to(other)
    (site / "tidegate_mending.py").symlink_to(other)
    assert mend_sdk(environment, lambda *_: None)
    assert other.read_text() == "kept"
    assert "install(old=False)" in (site / "tidegate_mending.pth").read_text()

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    site.rename(elsewhere / "site-packages")
    site.symlink_to(elsewhere / "site-packages")
    (site / "tidegate_mending.pth").unlink()
    assert mend_sdk(environment, lambda *_: None) is None
    assert not (site / "tidegate_mending.pth").exists()


FLOOD = """
import site, sys
site.addsitedir(sys.argv[1])
from gevent import monkey
monkey.patch_all(sys=True)
import gevent
from dify_plugin.core.server.stdio import response_writer as module
writer = module.StdioResponseWriter()
def session(name, messages):
    for number in range(messages):
        writer.write(name * 100)
        writer.write("\\n\\n")
flood = gevent.spawn(session, "f", 200_000)
other = gevent.spawn(session, "o", 3)
gevent.joinall([flood, other])
"""
WRITER = (
    "import sys\n"
    "class StdioResponseWriter:\n"
    "    def write(self, data):\n"
    "        sys.stdout.write(data)\n"
    "        sys.stdout.flush()\n"
)


@pytest.mark.parametrize("mended", [True, False])
@pytest.mark.blocks_hub("starts a process and reads what it says")
def test_a_session_that_only_writes_lets_others_in_between_two_messages(
    tmp_path: Path, mended: bool
) -> None:
    site = _environment(tmp_path, "0.9.0", {"core/server/stdio/response_writer.py": WRITER})
    if mended:
        mend_sdk(tmp_path, lambda *_: None)
    done = subprocess.run(
        [sys.executable, "-c", FLOOD, str(site)], capture_output=True, text=True, check=True
    )
    lines = done.stdout.split("\n\n")[:-1]
    assert set(lines) == {"f" * 100, "o" * 100}, "no message in another's midst"
    assert (len(lines), lines.count("o" * 100)) == (200_003, 3)
    waited = lines.index("o" * 100)
    assert waited < 100_000 if mended else waited == 200_000
