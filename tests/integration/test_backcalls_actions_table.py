"""Must show 4: which plugin of tests/plugins answers or asks what, and which test goes through it.

Every action and every type of back-call stands here with a plugin that is made with the real SDK.
A row more in a table of the product fails here until it has a plugin and a test.
"""

from __future__ import annotations

import ast
import inspect
import tomllib
from types import ModuleType

import pytest

from tests.faults import test_agent_runs
from tests.hosting import PLUGINS
from tests.integration import test_actions_sdk, test_backcalls
from tidegate.backcalls import KINDS
from tidegate.doors.dify import ACTIONS

OPTIONS = "test_options_are_fetched"
OAUTH = "test_oauth_from_address_to_refreshed_credentials"
SINGLE = "test_a_models_single_answers"
STREAMED = "test_a_language_model_streams_and_speaks"
POLLED = "test_a_language_model_that_is_polled"
SOURCES = "test_datasources_of_each_kind"
SUBSCRIBED = "test_a_subscription_from_its_making_to_its_end"
EVENT = "test_an_event_from_the_webhook_to_its_variables"
AGENT = "test_T16_every_agent_run_closes_at_once_and_leaves_nothing"

ANSWERED: dict[str, tuple[tuple[str, ...], str]] = {
    "tool/invoke": (("actor",), "test_a_tools_messages_of_each_kind_and_its_file"),
    "tool/validate_credentials": (("actor",), "test_tool_credentials_are_validated"),
    "tool/get_runtime_parameters": (
        ("actor",),
        "test_runtime_parameters_which_no_sdk_answers_end_empty",
    ),
    "agent_strategy/invoke": (("backagent",), AGENT),
    "llm/invoke": (("zoo",), STREAMED),
    "llm/num_tokens": (("zoo",), SINGLE),
    "text_embedding/invoke": (("zoo",), SINGLE),
    "text_embedding/num_tokens": (("zoo",), SINGLE),
    "multimodal_embedding/invoke": (("zoo",), SINGLE),
    "rerank/invoke": (("zoo",), SINGLE),
    "multimodal_rerank/invoke": (("zoo",), SINGLE),
    "tts/invoke": (("zoo",), STREAMED),
    "tts/model/voices": (("zoo",), SINGLE),
    "speech2text/invoke": (("zoo",), SINGLE),
    "moderation/invoke": (("zoo",), SINGLE),
    "model/validate_provider_credentials": (("zoo",), "test_provider_credentials_are_validated"),
    "model/validate_model_credentials": (("zoo",), SINGLE),
    "model/schema": (("zoo",), SINGLE),
    "model/polling/start": (("zoo",), POLLED),
    "model/polling/check": (("zoo",), POLLED),
    "oauth/get_authorization_url": (("actor", "collector", "listener"), OAUTH),
    "oauth/get_credentials": (("actor", "collector", "listener"), OAUTH),
    "oauth/refresh_credentials": (("actor", "collector", "listener"), OAUTH),
    "dynamic_select/fetch_parameter_options": (("actor", "listener"), OPTIONS),
    "datasource/validate_credentials": (
        ("collector",),
        "test_datasource_credentials_are_validated",
    ),
    "datasource/get_website_crawl": (("collector",), SOURCES),
    "datasource/get_online_document_pages": (("collector",), SOURCES),
    "datasource/get_online_document_page_content": (("collector",), SOURCES),
    "datasource/online_drive_browse_files": (("collector",), SOURCES),
    "datasource/online_drive_download_file": (("collector",), SOURCES),
    "trigger/validate_credentials": (("listener",), "test_trigger_credentials_are_validated"),
    "trigger/dispatch_event": (("listener",), EVENT),
    "trigger/invoke_event": (("listener",), EVENT),
    "trigger/subscribe": (("listener",), SUBSCRIBED),
    "trigger/unsubscribe": (("listener",), SUBSCRIBED),
    "trigger/refresh": (("listener",), SUBSCRIBED),
    # not dispatched but called from outside, by its hook
    "endpoint": (("actor",), "test_a_webhook_from_socket_to_plugin_and_back"),
}
"""Path of an action -> (plugins that answer it, test of test_actions_sdk or test_agent_runs)."""

ASKED: dict[str, tuple[str, ...]] = {
    "tool": ("tool", "workflow_tool"),
    "llm": ("llm", "llm_whole"),
    "llm_structured_output": ("structured",),
    "text_embedding": ("embedding",),
    "multimodal_embedding": ("multimodal_embedding",),
    "rerank": ("rerank",),
    "multimodal_rerank": ("multimodal_rerank",),
    "tts": ("tts",),
    "speech2text": ("speech2text",),
    "moderation": ("moderation",),
    "node_parameter_extractor": ("parameters",),
    "node_question_classifier": ("classes",),
    "app": ("chat", "chat_whole", "completion", "workflow"),
    "fetch_app": ("app",),
    "storage": ("storage",),
    "upload_file": ("upload",),
    "system_summary": ("summary",),
}
"""Type of a back-call -> functions of the backcaller that ask it; the backagent has them too."""

ALONE = {
    "storage": "test_storage_is_answered_here",
    "upload": "test_a_file_is_uploaded_where_dify_says",
}
"""Functions that have a test of their own instead of a row in EXPECTED of test_backcalls."""


def _has_test(module: ModuleType, name: str, text: str) -> bool:
    """Whether a module has that test, and the text stands in the module."""
    return inspect.isfunction(getattr(module, name, None)) and text in inspect.getsource(module)


def test_every_action_stands_in_the_table() -> None:
    assert set(ANSWERED) - {"endpoint"} == {action.path for action in ACTIONS}


def test_every_back_call_stands_in_the_table() -> None:
    assert set(ASKED) == set(KINDS)


@pytest.mark.parametrize("path", ANSWERED)
def test_an_action_has_its_plugin_and_its_test(path: str) -> None:
    plugins, name = ANSWERED[path]
    word = path.rpartition("/")[2]
    assert any(_has_test(module, name, word) for module in (test_actions_sdk, test_agent_runs))
    for plugin in plugins:
        assert plugin in inspect.getsource(test_actions_sdk) + inspect.getsource(test_agent_runs)
        _assert_real(plugin)


@pytest.mark.parametrize("type", ASKED)
def test_a_back_call_has_its_function_and_its_test(type: str) -> None:
    tree = ast.parse((PLUGINS / "backcaller" / "asking.py").read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for what in ASKED[type]:
        assert f"ask_{what}" in functions
        assert what in test_backcalls.EXPECTED or _has_test(test_backcalls, ALONE[what], what)
    _assert_real("backcaller")


def _assert_real(plugin: str) -> None:
    """Made with the real SDK, of a locked version."""
    lock = tomllib.loads((PLUGINS / plugin / "uv.lock").read_text(encoding="utf-8"))
    assert any(package["name"] in ("dify-plugin", "dify_plugin") for package in lock["package"])
