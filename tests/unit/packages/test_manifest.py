"""manifest.yaml: what is read from it, and which rules each package must hold."""

import pytest

from tests.crafted_packages import LIMIT, MANIFEST, plugin, zipped
from tidegate.errors import PackageRejected
from tidegate.ids import IDENTIFIER_LIMIT
from tidegate.packages import open_package
from tidegate.packages.manifest import decode_manifest, identifier_of
from tidegate.storage.tables import metadata


def with_change(old: str, new: str) -> str:
    assert old in MANIFEST
    return MANIFEST.replace(old, new, 1)


def rejected(content: str, match: str) -> None:
    with pytest.raises(PackageRejected, match=match):
        decode_manifest(content.encode())


def test_manifest_is_read():
    manifest = decode_manifest(MANIFEST.encode())
    assert (manifest.author, manifest.name, manifest.version) == ("acme", "weather", "0.0.1")
    assert manifest.plugin_id == "acme/weather"
    runner = manifest.runner
    assert (runner.language, runner.version, runner.entrypoint) == ("python", "3.12", "main")
    assert manifest.kinds == ("tool",)
    assert manifest.category == "tool"


def test_values_are_the_json_of_a_declaration():
    content = with_change(
        "resource: {memory: 1048576}",
        "resource: {memory: 1048576, permission: {tool: {enabled: true}, "
        "model: {enabled: yes, llm: true}, storage: {enabled: true, size: 1024}, app: ~}}",
    )
    content = content.replace("name: weather", "name: weather\nprivacy: PRIVACY.md\nunknown: 1")
    assert decode_manifest(content.encode()).values == {
        "version": "0.0.1",
        "type": "plugin",
        "author": "acme",
        "name": "weather",
        "label": {"en_US": "Weather"},
        "description": {"en_US": "Tells the weather"},
        "icon": "icon.svg",
        "icon_dark": "",
        "resource": {
            "memory": 1048576,
            "permission": {
                "tool": {"enabled": True},
                "model": {
                    "enabled": True,
                    "llm": True,
                    "text_embedding": False,
                    "rerank": False,
                    "tts": False,
                    "speech2text": False,
                    "moderation": False,
                },
                "storage": {"enabled": True, "size": 1024},
            },
        },
        "plugins": {
            "tools": ["provider/weather.yaml"],
            "models": None,
            "endpoints": None,
            "agent_strategies": None,
            "datasources": None,
            "triggers": None,
        },
        "meta": {
            "version": "0.0.1",
            "arch": ["amd64", "arm64"],
            "runner": {"language": "python", "version": "3.12", "entrypoint": "main"},
            "minimum_dify_version": None,
        },
        "tags": ["weather"],
        "created_at": "2024-07-12T08:03:44.658609186Z",
        "privacy": "PRIVACY.md",
    }


@pytest.mark.parametrize("text", ["1.10.0", "'1.10.0'"])
def test_version_is_text_as_written(text):
    content = with_change("version: 0.0.1", f"version: {text}")
    assert decode_manifest(content.encode()).version == "1.10.0"


@pytest.mark.parametrize(
    ("text", "stamp"),
    [
        ("2024-01-02", "2024-01-02T00:00:00Z"),
        ("'2024-01-02T03:04:05+08:00'", "2024-01-02T03:04:05+08:00"),
        ("~", "0001-01-01T00:00:00Z"),
    ],
)
def test_time_of_creation_is_rfc_3339(text, stamp):
    content = with_change("2024-07-12T08:03:44.658609186Z", text)
    assert decode_manifest(content.encode()).values["created_at"] == stamp


def test_time_that_is_none_is_rejected():
    rejected(with_change("2024-07-12T08:03:44.658609186Z", "yesterday"), "created_at takes a time")


@pytest.mark.parametrize("author", ["Acme", "a b", "", "a/b", "ä", "x" * 65, "acme\\n"])
def test_author_outside_its_letters_is_rejected(author):
    rejected(with_change("author: acme", f'author: "{author}"'), "author must be alphanumeric")


def test_author_that_is_a_uuid_is_rejected():
    uuid = "0b7f485a-4c47-4aa1-b113-4a18462d122d"
    rejected(with_change("author: acme", f"author: {uuid}"), "cannot set author to an UUID")


@pytest.mark.parametrize("name", ["Weather", "a b", "", "x" * 129])
def test_name_outside_its_letters_is_rejected(name):
    rejected(with_change("name: weather", f'name: "{name}"'), "plugin name must be")


def test_an_identifier_that_no_column_holds_is_rejected():
    """Author and name are each short enough; what they make together is not."""
    checksum = "9f" * 32
    room = IDENTIFIER_LIMIT - len(f"{'a' * 64}/:0.0.1@{checksum}")
    for length in (room, room + 1):
        content = with_change("author: acme", f"author: {'a' * 64}")
        content = content.replace("name: weather", f"name: {'n' * length}", 1)
        manifest = decode_manifest(content.encode())
        if length == room:
            assert len(str(identifier_of(manifest, checksum))) == IDENTIFIER_LIMIT
        else:
            with pytest.raises(PackageRejected, match=r"256 characters, .* take 1 off"):
                identifier_of(manifest, checksum)


def test_the_limit_of_identifiers_is_that_of_their_columns():
    for table in metadata.tables.values():
        for name in ("plugin_unique_identifier", "identifier"):
            column = table.columns.get(name)
            if column is not None:
                assert column.type.length == IDENTIFIER_LIMIT, table.name


@pytest.mark.parametrize("version", ["0.0.3-snapshot", "1.0.0-build_7", "0.0.1-x"])
def test_version_that_dify_cannot_read_is_rejected_with_that_reason(version):
    rejected(
        with_change("version: 0.0.1", f"version: {version}"),
        "is none that Dify reads \\(PEP 440\\)",
    )


@pytest.mark.parametrize("version", ["0.0.3", "1.0.0-beta1", "1.0.0-rc1", "0.1"])
def test_version_that_dify_reads_is_taken(version):
    content = with_change("version: 0.0.1", f"version: {version}")
    assert decode_manifest(content.encode()).version == version


TOOLS = "  tools: [provider/weather.yaml]"


@pytest.mark.parametrize("plugins", ["  tools: []", "  tools: ~", "  others: [a.yaml]"])
def test_manifest_that_offers_nothing_is_rejected(plugins):
    rejected(with_change(TOOLS, plugins), "at least one of endpoint, model, tool")


@pytest.mark.parametrize("alone", ["models", "agent_strategies", "datasources", "triggers"])
@pytest.mark.parametrize("other", ["tools", "endpoints", "models", "triggers"])
def test_kinds_that_stand_alone_are_rejected_together(alone, other):
    content = with_change(TOOLS, f"  {alone}: [a.yaml]\n  {other}x: [b.yaml]")
    assert decode_manifest(content.encode()).kinds
    if alone != other:
        rejected(content.replace(f"{other}x:", f"{other}:"), "cannot be provided at the same time")


def test_tools_and_endpoints_go_together():
    content = with_change(TOOLS, "  tools: [a.yaml]\n  endpoints: [b.yaml]")
    manifest = decode_manifest(content.encode())
    assert manifest.kinds == ("tool", "endpoint")
    assert manifest.category == "tool"


@pytest.mark.parametrize(
    ("files", "category"),
    [
        ("models", "model"),
        ("endpoints", "extension"),
        ("agent_strategies", "agent-strategy"),
        ("datasources", "datasource"),
        ("triggers", "trigger"),
    ],
)
def test_category_follows_from_what_is_offered(files, category):
    content = with_change(TOOLS, f"  {files}: [a.yaml]")
    assert decode_manifest(content.encode()).category == category


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("label: {en_US: Weather}", "label: Weather", "manifest.yaml: label takes a mapping"),
        ("memory: 1048576", "memory: much", "resource.memory takes a number"),
        ("tags: [weather]", "tags: weather", "tags takes a list"),
        ("name: weather", "name: [weather]", r"name takes text \(line 4\)"),
        ("name: weather", "name: weather\nname: other", "has the key 'name' twice"),
        ("tools: [provider/weather.yaml]", "tools: {a: b}", "plugins.tools takes a list"),
    ],
)
def test_wrong_kind_of_value_is_rejected_with_its_place(old, new, match):
    rejected(with_change(old, new), match)


@pytest.mark.parametrize("content", ["", "[]", "text", "- a"])
def test_what_is_no_manifest_is_rejected(content):
    rejected(content, "manifest")


def test_package_without_manifest_is_rejected():
    with pytest.raises(PackageRejected, match=r"there is no manifest\.yaml"):
        open_package(zipped(plugin(manifest__yaml=None)), limit=LIMIT)
