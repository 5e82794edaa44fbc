"""The actions of plugins that Dify's dispatch routes serve: one row each.

A row names the path, the plugin protocol's type and action, the fields that the request's
``data`` may have (spec/http/01 section 5, spec/plugin/04) and what the chunks are. Both dispatch
prefixes are built from it. Adding an action is adding a row to :data:`ACTIONS`.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Raw

from tidegate.doors.dify.action import (
    CREDENTIAL_TYPE,
    CREDENTIALS,
    PROVIDER,
    RESULT,
    Action,
    Field,
    mapping,
    text,
)
from tidegate.doors.dify.model_actions import MODELS
from tidegate.doors.dify.reshapers import ExpiryMender
from tidegate.doors.files import BlobMerger


class BrowseFiles(msgspec.Struct):
    """``request`` of browsing an online drive."""

    max_keys: int
    bucket: str | None = None
    prefix: str | None = None
    next_page_parameters: dict[str, Raw] | None = None


class DownloadFile(msgspec.Struct):
    """``request`` of downloading from an online drive."""

    id: Annotated[str, msgspec.Meta(min_length=1)]
    bucket: str | None = None


_MESSAGE = "{type, message, meta}"
_SUBSCRIPTION = "{subscription}"

_OAUTH = (PROVIDER, text("redirect_uri", required=True), mapping("system_credentials"))
_RAW_REQUEST = text("raw_http_request", required=True)
_SOURCE = (PROVIDER, text("datasource", required=True), *CREDENTIALS)
_SUBSCRIBED = mapping("subscription", required=True)
#: The SDK has no default: what has no type is not authorized.
_TRIGGER = (
    PROVIDER,
    mapping("credentials"),
    Field(
        "credential_type",
        str,
        absent=b'"unauthorized"',
        null=b'"unauthorized"',
        empty=b'"unauthorized"',
    ),
)
#: Here the SDK takes null for both, but the keys must be there.
_DISPATCHED = (
    PROVIDER,
    Field("credentials", dict[str, Raw], absent=b"null"),
    Field("credential_type", str, absent=b"null", empty=b"null"),
)

_TOOLS: Final = (
    Action(
        "tool/invoke",
        "tool",
        "invoke_tool",
        (PROVIDER, text("tool", required=True), mapping("tool_parameters"), *CREDENTIALS),
        _MESSAGE,
        unary=False,
        rules="tool",
        declared="tools",
    ),
    Action(
        "tool/validate_credentials",
        "tool",
        "validate_tool_credentials",
        (PROVIDER, mapping("credentials")),
        RESULT,
    ),
    Action(
        "tool/get_runtime_parameters",
        "tool",
        "get_tool_runtime_parameters",
        (PROVIDER, text("tool", required=True), mapping("credentials")),
        "{parameters}",
    ),
    Action(
        "agent_strategy/invoke",
        "agent_strategy",
        "invoke_agent_strategy",
        (
            text("agent_strategy_provider", required=True),
            text("agent_strategy", required=True),
            mapping("agent_strategy_params"),
        ),
        _MESSAGE + ", files in one piece",
        unary=False,
        rules="agent_strategy",
        declared="strategies",
        reshaper=lambda _: BlobMerger(),
    ),
)

_OAUTHS: Final = (
    Action(
        "oauth/get_authorization_url",
        "oauth",
        "get_authorization_url",
        _OAUTH,
        "{authorization_url}",
    ),
    Action(
        "oauth/get_credentials",
        "oauth",
        "get_credentials",
        (*_OAUTH, _RAW_REQUEST),
        "{metadata, credentials, expires_at}",
        reshaper=lambda _: ExpiryMender(),
    ),
    Action(
        "oauth/refresh_credentials",
        "oauth",
        "refresh_credentials",
        (*_OAUTH, mapping("credentials", required=True)),
        "{credentials, expires_at}",
        reshaper=lambda _: ExpiryMender(),
    ),
    Action(
        "dynamic_select/fetch_parameter_options",
        "dynamic_parameter",
        "fetch_parameter_options",
        (
            mapping("credentials", required=True),
            CREDENTIAL_TYPE,
            PROVIDER,
            text("provider_action", required=True),
            text("parameter", required=True),
        ),
        "{options}",
    ),
)

_DATASOURCES: Final = (
    Action(
        "datasource/validate_credentials",
        "datasource",
        "validate_datasource_credentials",
        (PROVIDER, *CREDENTIALS),
        RESULT,
    ),
    Action(
        "datasource/get_website_crawl",
        "datasource",
        "invoke_website_datasource_get_crawl",
        (*_SOURCE, mapping("datasource_parameters", required=True)),
        RESULT,
        unary=False,
    ),
    Action(
        "datasource/get_online_document_pages",
        "datasource",
        "invoke_online_document_datasource_get_pages",
        (*_SOURCE, mapping("datasource_parameters", required=True)),
        RESULT,
    ),
    Action(
        "datasource/get_online_document_page_content",
        "datasource",
        "invoke_online_document_datasource_get_page_content",
        (*_SOURCE, mapping("page", required=True)),
        _MESSAGE,
        unary=False,
        rules="datasource",
        declared="datasources",
    ),
    Action(
        "datasource/online_drive_browse_files",
        "datasource",
        "invoke_online_drive_browse_files",
        (*_SOURCE, Field("request", BrowseFiles, required=True)),
        RESULT,
    ),
    Action(
        "datasource/online_drive_download_file",
        "datasource",
        "invoke_online_drive_download_file",
        (*_SOURCE, Field("request", DownloadFile, required=True)),
        _MESSAGE,
        unary=False,
        rules="datasource",
        declared="datasources",
    ),
)

_TRIGGERS: Final = (
    Action(
        "trigger/invoke_event",
        "trigger",
        "invoke_trigger_event",
        (
            PROVIDER,
            text("event", required=True),
            _RAW_REQUEST,
            mapping("parameters"),
            _SUBSCRIBED,
            mapping("payload"),
            *CREDENTIALS,
        ),
        "{variables, cancelled}",
    ),
    Action(
        "trigger/validate_credentials",
        "trigger",
        "validate_trigger_credentials",
        (PROVIDER, *CREDENTIALS),
        RESULT,
    ),
    Action(
        "trigger/dispatch_event",
        "trigger",
        "dispatch_trigger_event",
        (*_DISPATCHED, _SUBSCRIBED, _RAW_REQUEST),
        "{user_id, events, payload, response}",
    ),
    Action(
        "trigger/subscribe",
        "trigger",
        "subscribe_trigger",
        (*_TRIGGER, text("endpoint", required=True), mapping("parameters")),
        _SUBSCRIPTION,
    ),
    Action(
        "trigger/unsubscribe",
        "trigger",
        "unsubscribe_trigger",
        (*_TRIGGER, _SUBSCRIBED),
        _SUBSCRIPTION,
    ),
    Action(
        "trigger/refresh",
        "trigger",
        "refresh_trigger",
        (*_TRIGGER, _SUBSCRIBED),
        _SUBSCRIPTION,
    ),
)

ACTIONS: Final[tuple[Action, ...]] = (*_TOOLS, *MODELS, *_OAUTHS, *_DATASOURCES, *_TRIGGERS)
