"""Settings of endpoints: what is refused, and what is shown of a secret."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate.doors.dify.endpoint_settings import (
    check_settings,
    hidden,
    mask,
    masked,
    unmasked,
)
from tidegate.errors import BadRequest

CONFIG: list[dict[str, Any]] = [
    {"name": "token", "type": "secret-input", "required": True},
    {"name": "plain", "type": "text-input"},
    {"name": "pick", "type": "select", "options": [{"value": "a"}]},
    {"name": "flag", "type": "boolean"},
    {"name": "app", "type": "app-selector"},
    {"name": "llm", "type": "model-selector", "scope": "llm"},
    {"name": "rerank", "type": "model-selector", "scope": "rerank"},
    {"name": "tts", "type": "model-selector", "scope": "tts"},
    {"name": "vision", "type": "model-selector", "scope": "vision"},
    {"name": "both", "type": "model-selector", "scope": "llm&vision"},
    {"name": "tools", "type": "array[tools]"},
]
MODEL = {"provider": "p", "model": "m", "model_type": "llm"}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"plain": None, "unknown": {"k": 1}},
        {"pick": "a", "flag": False, "app": {"app_id": "x"}, "tools": 5},
        {"llm": MODEL, "both": MODEL, "tts": {**MODEL, "voice": "v"}},
        {"rerank": {**MODEL, "score_threshold": 0, "top_n": 0}},
        {"vision": {**MODEL, "completion_params": {}}},
    ],
)
def test_settings_that_fit(more: dict[str, Any]) -> None:
    check_settings({"token": "x", **more}, CONFIG)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "missing required setting: token"),
        ({"token": None}, "missing required setting: token"),
        ({"token": 1}, "setting token is not a string"),
        ({"token": "x", "plain": []}, "setting plain is not a string"),
        ({"token": "x", "pick": "z"}, "setting pick is not a valid option"),
        ({"token": "x", "pick": 1}, "setting pick is not a string"),
        ({"token": "x", "flag": "yes"}, "setting flag is not a boolean"),
        ({"token": "x", "flag": 1}, "setting flag is not a boolean"),
        ({"token": "x", "app": {}}, "setting app is missing app_id"),
        ({"token": "x", "llm": "m"}, "setting llm is not an object"),
        ({"token": "x", "llm": {"provider": "p"}}, "setting llm is missing model"),
        ({"token": "x", "rerank": MODEL}, "setting rerank is missing score_threshold"),
        ({"token": "x", "tts": MODEL}, "setting tts is missing voice"),
        ({"token": "x", "vision": MODEL}, "setting vision is missing completion_params"),
        ({"token": "x", **{f"k{i}": 1 for i in range(64)}}, "too many setting fields"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=f"^failed to validate settings: {words}"):
        check_settings(settings, CONFIG)


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        ("secret-token", "se********en"),
        ("1234567", "12***67"),
        ("123456", "******"),
        ("abc", "***"),
        ("", ""),
        ("\u00fc" * 4, "****"),
    ],
)
def test_a_mask_shows_the_ends_at_most(secret: str, shown: str) -> None:
    assert mask(secret) == shown


def test_only_secrets_are_masked() -> None:
    settings = {"token": "secret-token", "plain": "secret-token", "n": 5}
    assert masked(settings, CONFIG) == {**settings, "token": "se********en"}
    assert hidden(settings, CONFIG) == {**settings, "token": "******"}


def test_a_mask_that_comes_back_stands_for_its_secret() -> None:
    before = {"token": "secret-token", "plain": "se********en"}
    given = {"token": "se********en", "plain": "se********en", "new": 1}
    assert unmasked(given, before, CONFIG) == {**given, "token": "secret-token"}
    assert unmasked({"token": "other"}, before, CONFIG) == {"token": "other"}
    assert unmasked({"token": "***"}, {}, CONFIG) == {"token": "***"}
