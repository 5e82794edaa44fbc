"""The table of actions: what is asked of ``data``, and what the plugin gets of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from tidegate.doors.binding import BindingRefused
from tidegate.doors.dify.actions import ACTIONS

BY_PATH = {action.path: action for action in ACTIONS}
MODEL = {"provider": "p", "model": "m", "model_type": "llm", "credentials": {}}


def read(path: str, data: bytes | dict[str, Any]) -> bytes:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return BY_PATH[path].read(Raw(raw)).line


def refusal(path: str, data: bytes | dict[str, Any]) -> str:
    with pytest.raises(BindingRefused) as caught:
        read(path, data)
    return caught.value.message


def test_paths_and_actions_are_unique() -> None:
    assert len(BY_PATH) == len(ACTIONS)
    assert len({(row.type, row.action) for row in ACTIONS}) == len(ACTIONS)


@pytest.mark.parametrize(
    ("path", "row"),
    [
        ("tool/invoke", ("tool", "invoke_tool")),
        ("tool/validate_credentials", ("tool", "validate_tool_credentials")),
        ("llm/invoke", ("model", "invoke_llm")),
        ("model/validate_provider_credentials", ("model", "validate_provider_credentials")),
        ("model/validate_model_credentials", ("model", "validate_model_credentials")),
        ("model/schema", ("model", "get_ai_model_schemas")),
    ],
)
def test_the_rows_of_this_door(path: str, row: tuple[str, str]) -> None:
    assert (BY_PATH[path].type, BY_PATH[path].action) == row


def test_D_22_what_came_passes_as_the_bytes_that_came() -> None:
    data = (
        b'{"tool":"now","provider":"w","tool_parameters":{"n":9007199254740993,"f":1.0,"e":1e400},'
        b'"credentials":{},"future_field":[1,{"b":null}],"text":"\\u0085\xc3\xa9"}'
    )
    assert read("tool/invoke", data) == data


def test_whitespace_between_tokens_does_not_break_the_line() -> None:
    data = b'{\r\n "provider": "w",\n "tool": "t",\n "tool_parameters": {}, "credentials": {}\n}'
    line = read("tool/invoke", data)
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.loads(line) == json.loads(data)


def test_a_null_object_that_the_sdk_refuses_becomes_an_empty_one() -> None:
    line = read("tool/invoke", {"provider": "w", "tool": "t", "credentials": None, "x": 1})
    assert json.loads(line) == {"provider": "w", "tool": "t", "credentials": {}, "x": 1}


def test_a_missing_object_is_left_for_the_sdk_to_judge() -> None:
    line = read("tool/invoke", {"provider": "w", "tool": "t"})
    assert json.loads(line) == {"provider": "w", "tool": "t"}


def test_an_llm_request_gets_the_keys_that_the_sdk_has_no_default_for() -> None:
    given = json.loads(read("llm/invoke", {**MODEL, "prompt_messages": [], "stop": ["x"]}))
    assert given["tools"] is None
    assert given["stop"] == ["x"]
    assert given["stream"] is False
    assert "tool_choice" not in given
    assert "credential_type" not in given


def test_nulls_that_the_sdk_takes_stay_as_they_are() -> None:
    data = json.dumps(
        {**MODEL, "prompt_messages": [], "model_parameters": {}, "tools": None, "stop": None}
        | {"stream": True}
    ).encode()
    assert read("llm/invoke", data) == data


def test_errata_1_strange_prompt_messages_are_for_the_sdk_to_judge() -> None:
    messages = [{"role": "user", "content": None}, {"role": "user"}, {"role": "x", "content": 5}]
    given = json.loads(read("llm/invoke", {**MODEL, "prompt_messages": messages}))
    assert given["prompt_messages"] == messages


def test_every_missing_field_is_named() -> None:
    assert refusal("tool/invoke", {}) == (
        "Key: 'Data.Provider' Error:Field validation for 'Provider' failed on the 'required' tag\n"
        "Key: 'Data.Tool' Error:Field validation for 'Tool' failed on the 'required' tag"
    )
    assert "'Provider'" in refusal("tool/invoke", {"provider": "", "tool": "t"})
    assert "'Provider'" in refusal("tool/invoke", {"provider": None, "tool": "t"})


def test_the_model_type_must_be_the_one_of_the_route() -> None:
    assert "'ModelType' failed on the 'eq' tag" in refusal(
        "llm/invoke", {**MODEL, "model_type": "tts"}
    )
    assert "'ModelType' failed on the 'model_type' tag" in refusal(
        "model/schema", {**MODEL, "model_type": "nothing"}
    )
    assert "'required'" in refusal("model/schema", {**MODEL, "model_type": ""})
    assert read("model/schema", {**MODEL, "model_type": "multimodal-rerank"})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({**MODEL, "provider": 5}, "$.provider"),
        ({**MODEL, "credentials": []}, "$.credentials"),
        ({**MODEL, "stream": "yes"}, "$.stream"),
        ({**MODEL, "tools": [{"name": ""}]}, "$.tools[0].name"),
        ({**MODEL, "tools": {}}, "$.tools"),
        ({**MODEL, "tool_choice": {"mode": "tool"}}, "$.tool_choice"),
        ({**MODEL, "tool_choice": {"mode": "loud"}}, "$.tool_choice.mode"),
    ],
)
def test_D_68_what_does_not_fit_is_named(data: dict[str, Any], words: str) -> None:
    assert words in refusal("llm/invoke", data)


@pytest.mark.parametrize(
    "data",
    [
        b"5",
        b"[]",
        b'"x"',
        b'{"provider":"w","tool":"t","tool_parameters":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    ],
)
def test_T_P10_data_that_is_no_sane_object_is_refused(data: bytes) -> None:
    assert "does not fit tool/invoke" in refusal("tool/invoke", data)


def test_T_P10_duplicate_keys_pass_through() -> None:
    data = b'{"provider":"a","provider":"b","tool":"t","tool_parameters":{},"credentials":{}}'
    assert read("tool/invoke", data) == data
