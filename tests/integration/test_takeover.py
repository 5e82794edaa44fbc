"""An existing `dify_plugin` database and its storage folder are taken over: nothing is lost.

The reference daemon is stopped, Tidegate starts on what it used. Rows that its age left twice are
set aside whole; all others stay. Installed plugins answer at once, and environments are built
behind their back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hosting import PLUGINS, package_of, working_path
from tests.integration.reference_site import ReferenceSite
from tests.patience import wait_until
from tests.servers import PostgresServer, RedisServer
from tests.stack import TENANT, Stack, running_stack
from tidegate.ids import PluginIdentifier
from tidegate.settings import Settings
from tidegate.storage import Database, endpoints, readmes

pytestmark = [
    pytest.mark.limit(180, "starts all four roles; environments are built by uv"),
    pytest.mark.blocks_hub("starts processes, builds packages"),
]

OTHER = "0198c5d2-0000-7000-8000-00000000000b"
GONE = f"acme/gone:1.2.3@{'c' * 64}"
VALUE = b"\0 what the plugin kept"
KEEP = """

def kept(tool: Tool, given: dict[str, Any]) -> Answer:
    yield tool.create_text_message(tool.session.storage.get(str(given["key"])).hex())
"""


@dataclass
class Taken:
    """A site that was taken over, and the stack that runs on it."""

    site: ReferenceSite
    stack: Stack
    settings: Settings
    called: PluginIdentifier
    quiet: PluginIdentifier
    hook: str


@pytest.fixture(scope="module")
def taken(
    postgres: PostgresServer, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Taken]:
    """One take-over for all of these tests."""
    folder = tmp_path_factory.mktemp("takeover")
    with postgres.database() as environ:
        site = ReferenceSite(postgres, environ["DB_DATABASE"], folder / "storage")
        called, quiet, hook = _fill(site, folder)
        before = dict(site.rows)
        variables = {
            **environ,
            **redis.environ,
            "REDIS_DB": "7",
            "PLUGIN_STORAGE_LOCAL_ROOT": str(site.storage),
            "PLUGIN_WORKING_PATH": str(site.storage / "cwd"),
            "UV_CACHE_DIR": str(working_path() / ".uv-cache"),
            "UV_PYTHON_INSTALL_DIR": str(working_path() / ".python"),
        }
        with running_stack(site.storage, **variables) as stack:
            site.rows = before
            settings = Settings.load({"TIDEGATE_HOME": str(site.storage), **variables})
            yield Taken(site, stack, settings, called, quiet, hook)


def _fill(site: ReferenceSite, folder: Path) -> tuple[PluginIdentifier, PluginIdentifier, str]:
    misbehave = PLUGINS / "misbehave"
    act = (misbehave / "tools/act.py").read_text() + KEEP
    files = {"tools/act.py": act}
    site.make_tables()
    called = site.install(
        package_of(misbehave, folder, name="called", files=files), [TENANT, OTHER]
    ).identifier
    quiet = site.install(
        package_of(misbehave, folder, name="quiet"), [TENANT], uploaded=False
    ).identifier
    _age(site, called)
    names = {"tenant_id": TENANT, "plugin_id": called.plugin_id}
    hook = "k3v9q0a1b2c3d4e5"
    site.row(
        "endpoints", **names, name="my hook", hook_id=hook, user_id="u1", enabled=True,
        expired_at="2050-01-01 00:00:00+00", settings='{"token":"sealed by Dify"}',
    )  # fmt: skip
    site.execute("UPDATE plugin_installations SET endpoints_setups = 1, endpoints_active = 1")
    site.put(f"persistence/{TENANT}/{called.plugin_id}/notes/one", VALUE)
    site.row("tenant_storages", **names, size=len(VALUE))
    site.row("tenant_storages", **names, size=len(VALUE))
    task = [{"plugin_unique_identifier": GONE, "status": "failed", "message": "no luck"}]
    site.row(
        "install_tasks", status="failed", tenant_id=TENANT, total_plugins=1, completed_plugins=0,
        plugins=json.dumps(task),
    )  # fmt: skip
    return called, quiet, hook


def _age(site: ReferenceSite, called: PluginIdentifier) -> None:
    """What years of an older daemon leave."""
    names = {"plugin_unique_identifier": str(called), "plugin_id": called.plugin_id}
    site.row("plugins", **names, refers=9, install_type="local")
    site.row("tool_installations", **names, tenant_id=TENANT, provider="misbehave")
    for _ in range(2):
        site.row(
            "plugin_readme_records", plugin_unique_identifier=str(called), language="en_US",
            content="# Kept",
        )  # fmt: skip
    site.execute("UPDATE plugin_installations SET meta = NULL WHERE tenant_id = %s", (OTHER,))
    gone = {"plugin_unique_identifier": GONE, "plugin_id": "acme/gone"}
    site.row("plugins", **gone, refers=1, install_type="local")
    site.row("plugin_installations", **gone, tenant_id=TENANT, runtime_type="local", meta="{}")
    site.row("serverless_runtimes", plugin_unique_identifier=GONE, type="serverless")


def _act(taken: Taken, plugin: PluginIdentifier, deed: str, **parameters: object) -> list[str]:
    data = {
        "provider": "misbehave", "tool": "act", "credentials": {},
        "tool_parameters": {"deed": deed, **parameters},
    }  # fmt: skip
    answer = taken.stack.call(plugin.plugin_id, "tool/invoke", data)
    assert answer.error is None, answer.error
    return answer.texts


def test_a_plugin_that_is_called_is_built_at_once(taken: Taken) -> None:
    assert _act(taken, taken.called, "echo", text="still here") == ["still here"]


def test_every_other_environment_is_built_in_the_background(taken: Taken) -> None:
    folder = taken.site.storage / "cwd" / taken.quiet.folder
    facts = folder.with_name(f".{folder.name}.json")
    mark = taken.quiet.folder.replace("/", "+")
    users = taken.site.storage / "cwd/.environments"
    wait_until(lambda: facts.exists() and list(users.glob(f"*.users/{mark}")))
    log = taken.settings.home.logs / f"plugins/{taken.quiet.plugin_id}.log"
    assert not log.exists(), "it was built, not started"
    assert _act(taken, taken.quiet, "echo", text="me too") == ["me too"]


def test_lists_show_what_was_installed_and_leave_out_what_is_broken(taken: Taken) -> None:
    found = taken.stack.data("GET", "list?page=1&page_size=256")
    shown = {one["plugin_unique_identifier"]: one for one in found["list"]}
    assert set(shown) == {str(taken.called), str(taken.quiet)}
    one = shown[str(taken.called)]
    assert one["meta"] == {}, "null became an object (D-12)"
    assert one["source"] == "marketplace"
    assert one["declaration"]["tool"]["identity"]["name"] == "misbehave"
    assert (one["endpoints_setups"], one["endpoints_active"]) == (1, 1)


def test_declarations_icons_and_tools_are_served(taken: Taken) -> None:
    query = f"plugin_unique_identifier={taken.called}"
    declaration = taken.stack.data("GET", f"fetch/manifest?{query}")
    assert declaration["name"] == "called"
    status, icon = taken.stack.ask("GET", f"/plugin/{TENANT}/asset/{declaration['icon']}")
    assert status == 200
    assert icon == (PLUGINS / "misbehave/_assets/icon.svg").read_bytes()
    tools = taken.stack.data("GET", "tools?page=1&page_size=256")
    assert sorted(tool["plugin_id"] for tool in tools) == [
        taken.called.plugin_id,
        taken.quiet.plugin_id,
    ], "each once, although a row is there twice"


def test_tasks_of_the_old_daemon_are_shown(taken: Taken) -> None:
    [task] = taken.stack.data("GET", "install/tasks?page=1&page_size=20")
    assert (task["status"], task["plugins"][0]["message"]) == ("failed", "no luck")


def test_a_plugin_finds_what_it_had_stored(taken: Taken) -> None:
    assert _act(taken, taken.called, "kept", key="notes/one") == [VALUE.hex()]


def test_endpoints_keep_their_hooks_and_settings(taken: Taken) -> None:
    database = Database(taken.settings)
    with database.read() as conn:
        found = endpoints.by_hook(conn, taken.hook)
        readme = readmes.get(conn, str(taken.called), "ja_JP")
    database.dispose()
    assert found is not None
    assert (found.enabled, found.plugin_id) == (True, taken.called.plugin_id)
    assert found.settings == {"token": "sealed by Dify"}
    assert readme == readmes.Readme("en_US", "# Kept")


def test_no_row_is_lost(taken: Taken) -> None:
    aside = dict(
        taken.site.execute("SELECT table_name, count(*) FROM tidegate_set_aside GROUP BY 1")
    )
    assert aside == {"plugins": 1, "tenant_storages": 1, "plugin_readme_records": 1}
    for table, before in taken.site.rows.items():
        assert taken.site.count(table) == before - aside.get(table, 0), table
    refers = taken.site.execute(
        "SELECT refers FROM plugins WHERE plugin_id = %s", (taken.called.plugin_id,)
    )
    assert refers == [(2,)], "counted, where two rows had a number each"


def test_no_file_is_lost(taken: Taken) -> None:
    for plugin in (taken.called, taken.quiet):
        assert (taken.site.storage / f"plugin/{plugin}").is_file()
    kept = taken.site.storage / f"persistence/{TENANT}/{taken.called.plugin_id}/notes/one"
    assert kept.read_bytes() == VALUE


def test_what_was_taken_over_can_be_uninstalled_for_one_tenant(taken: Taken) -> None:
    found = taken.stack.data("GET", "list?page=1&page_size=256")
    [row] = [one for one in found["list"] if one["plugin_id"] == taken.called.plugin_id]
    taken.stack.data("POST", "uninstall", {"plugin_installation_id": row["id"]})
    left = taken.stack.data("GET", "list?page=1&page_size=256")
    assert [one["plugin_id"] for one in left["list"]] == [taken.quiet.plugin_id]
    tenants = taken.site.execute(
        "SELECT tenant_id::text FROM plugin_installations WHERE plugin_unique_identifier = %s",
        (str(taken.called),),
    )
    assert tenants == [(OTHER,)]
