"""``tidegate credential``: kept encrypted, shown by name, never echoed."""

from __future__ import annotations

import json

import pytest

PLACE = ("--provider", "acme/zoo/zoo")


def test_what_is_set_is_listed_by_name_until_it_is_removed(tidegate, home) -> None:
    done = tidegate("credential", "set", *PLACE, "api_key=canary-1", "base=x")
    assert done.returncode == 0, done.stderr
    model = ("--model-type", "llm", "--model", "m1")
    assert tidegate("credential", "set", *PLACE, *model, "api_key=canary-2").returncode == 0
    rows = json.loads(tidegate("credential", "list", "--json").stdout)
    assert [(row["provider"], row["model"], row["keys"]) for row in rows] == [
        ("acme/zoo/zoo", "", "api_key, base"),
        ("acme/zoo/zoo", "m1", "api_key"),
    ]
    assert b"canary" not in b"".join(path.read_bytes() for path in home.glob("tidegate.db*"))
    assert tidegate("credential", "remove", *PLACE).returncode == 0
    assert tidegate("credential", "remove", *PLACE).returncode == 1
    assert "m1" in tidegate("credential", "list").stdout


def test_values_may_come_from_a_file_of_json(tidegate, tmp_path) -> None:
    path = tmp_path / "key.json"
    path.write_text('{"api_key": "canary", "retries": 3}', encoding="utf-8")
    done = tidegate("credential", "set", *PLACE, "--file", str(path), "base=x")
    assert "api_key, base, retries" in done.stdout
    assert "canary" not in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("set", *PLACE),
        ("set", *PLACE, "canary"),
        ("set", *PLACE, "=canary"),
        ("set", "--provider", "zoo", "a=canary"),
        ("set", *PLACE, "--model", "m1", "a=canary"),
        ("set", *PLACE, "--tenant", "nobody", "a=canary"),
        ("set", *PLACE, "--file", "/dev/null"),
    ],
)
def test_a_mistake_is_one_line_that_shows_no_secret(tidegate, arguments) -> None:
    done = tidegate("credential", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "canary" not in done.stderr
