"""The documentation tells the truth: reference pages, links, commands, names of settings."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tidegate.cli.program import LazyGroup
from tidegate.cli.program import root as commands
from tidegate.settings import all_settings

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
#: Settings of Dify itself and variables of other programs that pages may name.
FOREIGN = {
    "CELERY_WORKER_CLASS", "CELERY_WORKER_POOL", "FLASK_DEBUG", "GEVENT_SUPPORT",
    "INNER_API_KEY_FOR_PLUGIN", "PIP_INDEX_URL", "PLUGIN_DAEMON_KEY", "PLUGIN_DAEMON_URL",
    "PLUGIN_DIFY_INNER_API_KEY", "SSL_CERT_FILE", "XDG_DATA_HOME", "SERVER_WORKER_CLASS",
}  # fmt: skip


def _tracked() -> list[Path]:
    """Files of the repository; without git, all that is not made by a tool."""
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if done.returncode == 0:
        return [ROOT / name for name in done.stdout.decode().split("\0") if name]
    return [path for room in ("src", "tests", "docs", "examples") for path in _files(ROOT / room)]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]


def test_the_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/reference.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = [
        target
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
        if not target.startswith(("http:", "https:", "mailto:"))
        and not (page.parent / target).exists()
    ]
    assert not broken


def test_every_page_is_reached_from_the_index() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([^)#\s]+)\)", index))
    missing = [
        str(page.relative_to(DOCS))
        for page in DOCS.rglob("*.md")
        if page.name != "index.md"
        and str(page.relative_to(DOCS)) not in linked
        and page.parent.name != "adr"
    ]
    assert not missing


def test_settings_that_pages_name_exist() -> None:
    known = {name for name, _, _, _ in all_settings()} | FOREIGN
    pattern = re.compile(
        r"\b(?:TIDEGATE|SERVER|PLUGIN|DIFY|PIP|DB|REDIS|CELERY|FORCE|THIRD_PARTY)_[A-Z_]*[A-Z]\b"
    )
    wrong = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in PAGES
        for name in pattern.findall(page.read_text(encoding="utf-8"))
        if not {name, f"TIDEGATE_{name}"} & known and not name.startswith("TIDEGATE_TEST_")
    ]
    assert not wrong


def _option_names(command: click.Command) -> set[str]:
    found = {"--help", "-h"}
    for parameter in command.params:
        found |= {*parameter.opts, *parameter.secondary_opts}
    return found


def _check_command(words: list[str]) -> None:
    command: click.Command = commands
    while isinstance(command, LazyGroup) and words and not words[0].startswith("-"):
        name = words.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"tidegate has no {name}"
        command = found
    allowed = _option_names(command)
    if command.context_settings.get("ignore_unknown_options"):
        return
    for word in words:
        assert not word.startswith("-") or word.split("=")[0] in allowed, word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_on_pages_exist(page: Path) -> None:
    """Every ``tidegate …`` and ``make …`` line of a shell block, with the options that it uses."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = line.split("#", 1)[0].split()
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words.pop(0)
            if words[:1] == ["make"]:
                assert set(words[1:]) <= targets, line
            elif words[:1] == ["tidegate"]:
                _check_command(words[1:])


def test_every_target_of_the_makefile_is_in_the_readme_and_short() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for target, recipe in re.findall(r"^([a-z]+):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE):
        assert f"make {target}" in readme, target
        assert recipe.count("\n") <= 3, f"{target} is longer than 3 lines"


def test_every_change_fragment_has_a_kind() -> None:
    kinds = "feature|fix|security|removal|docs"
    names = [path.name for path in (ROOT / "changes").glob("*.md") if path.name != "README.md"]
    assert names
    assert all(re.fullmatch(rf"\d+(\.\d+)?\.({kinds})\.md", name) for name in names)


def test_every_decision_has_its_four_parts_and_fits_a_page() -> None:
    decisions = sorted((DOCS / "adr").glob("*.md"))
    assert [int(path.name[:3]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        text = path.read_text(encoding="utf-8")
        for part in ("Status:", "## Context", "## Decision", "## Consequences", "## Alternatives"):
            assert part in text, f"{path.name} lacks {part}"
        assert text.count("\n") <= 60, f"{path.name} is longer than a page"


def test_every_dependency_is_explained() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [one for extra in project["optional-dependencies"].values() for one in extra]
    wanted = [*project["dependencies"], *extras]
    page = (DOCS / "adr" / "007-dependencies.md").read_text(encoding="utf-8")
    missing = [name for one in wanted if (name := re.split(r"[<>=!~\[ ]", one)[0]) not in page]
    assert not missing


def test_no_path_and_no_host_of_a_developer_s_machine_is_committed() -> None:
    """What works here only would work nowhere else."""
    pattern = re.compile(rb"/wo" rb"rk/|/ro" rb"ot/|/home/[a-z]+/|/opt/" rb"wheels")
    guilty = []
    for path in _tracked():
        if path.name == "uv.lock" or not path.is_file():
            continue
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if pattern.search(line):
                guilty.append(f"{path.relative_to(ROOT)}:{number}: {line[:100]!r}")
    assert not guilty, "\n".join(guilty)
