"""What the management routes take (spec/http/01 section 3), as typed forms with their rules."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from tidegate.doors.binding import (
    IDENTIFIER,
    REQUIRED,
    Form,
    PageForm,
    Rule,
    at_least,
    at_most,
)
from tidegate.packages import TAGS

_LANGUAGES: Final = ("", "en_US", "zh_Hans", "ja_JP", "pt_BR")
_KNOWN_TAG: Final = Rule("plugin_tag", lambda value: value in TAGS)
_KNOWN_LANGUAGE: Final = Rule("oneof", lambda value: value in _LANGUAGES)


class UploadForm(Form):
    """A file in a multipart form. ``verify_signature``: ``true`` asks for a valid signature."""

    verify_signature: str = ""


class PackageForm(UploadForm):
    """A package."""

    dify_pkg: bytes = b""
    rules = {"dify_pkg": (REQUIRED,)}


class BundleForm(UploadForm):
    """A bundle."""

    dify_bundle: bytes = b""
    rules = {"dify_bundle": (REQUIRED,)}


class TaskForm(Form):
    """One install task."""

    id: str = ""


class TaskEntryForm(Form):
    """One plugin of a task. The identifier is the rest of the path, slashes included."""

    id: str = ""
    identifier: str = ""


class IdentifierForm(Form):
    """One plugin version."""

    plugin_unique_identifier: str = ""
    rules = {"plugin_unique_identifier": (REQUIRED, IDENTIFIER)}


class InstallForm(Form):
    """Versions to install. ``metas`` has an entry for each; null entries count as empty."""

    plugin_unique_identifiers: list[str] | None = None
    source: str = ""
    metas: list[dict[str, Any] | None] | None = None
    rules = {
        "plugin_unique_identifiers": (REQUIRED, at_most(64)),
        "source": (REQUIRED, at_most(63)),
    }
    items = {"plugin_unique_identifiers": (IDENTIFIER,)}


class UninstallForm(Form):
    """One installation of the tenant."""

    plugin_installation_id: str = ""
    rules = {"plugin_installation_id": (REQUIRED,)}


class UpgradeForm(Form):
    """From which version to which."""

    original_plugin_unique_identifier: str = ""
    new_plugin_unique_identifier: str = ""
    source: str = ""
    meta: dict[str, Any] | None = None
    rules = {
        "original_plugin_unique_identifier": (REQUIRED, IDENTIFIER),
        "new_plugin_unique_identifier": (REQUIRED, IDENTIFIER),
        "source": (REQUIRED, at_most(63)),
    }


class ReadmeForm(Form):
    """A version's readme, best in this language."""

    plugin_unique_identifier: str = ""
    language: str = ""
    rules = {"plugin_unique_identifier": (REQUIRED, IDENTIFIER), "language": (at_most(32),)}


class PackageFileForm(Form):
    """A file of a package, by its path below ``_assets/``."""

    plugin_unique_identifier: str = ""
    file_path: str = ""
    rules = {
        "plugin_unique_identifier": (REQUIRED, IDENTIFIER),
        "file_path": (REQUIRED, at_most(1024)),
    }


class CategoryListForm(PageForm):
    """Installed plugins of one category, narrowed down. Tags are alternatives."""

    category: str = ""
    query: str = ""
    tags: list[str] | None = None
    language: str = ""
    rules = {
        **PageForm.rules,
        "query": (at_most(256),),
        "language": (_KNOWN_LANGUAGE,),
    }
    items = {"tags": (_KNOWN_TAG,)}


class CategoryForm(Form):
    """One category."""

    category: str = ""
    rules = {"category": (REQUIRED,)}


class PluginIdsForm(Form):
    """Plugins, whatever their versions."""

    plugin_ids: list[str] | None = None
    rules = {"plugin_ids": (REQUIRED, at_most(256))}


class IdentifiersForm(Form):
    """Plugin versions."""

    plugin_unique_identifiers: list[str] | None = None
    rules = {"plugin_unique_identifiers": (REQUIRED, at_most(256))}
    items = {"plugin_unique_identifiers": (IDENTIFIER,)}


class ProviderForm(Form):
    """One provider of a plugin, by its bare name."""

    plugin_id: str = ""
    provider: str = ""
    rules = {"plugin_id": (REQUIRED,), "provider": (REQUIRED,)}


class ProviderId(msgspec.Struct):
    """A tool provider that may be there."""

    plugin_id: Annotated[str, msgspec.Meta(min_length=1)]
    provider_name: Annotated[str, msgspec.Meta(min_length=1)]


class ProviderIdsForm(Form):
    """Tool providers that may be there."""

    provider_ids: list[ProviderId] | None = None
    rules = {"provider_ids": (REQUIRED, at_most(4096))}


# --------------------------------------------------------------------------- endpoints


_MOST_NAME: Final = 127
_MOST_USER: Final = 64


class EndpointSetupForm(Form):
    """A new endpoint."""

    plugin_unique_identifier: str = ""
    user_id: str = ""
    name: str = ""
    settings: dict[str, Any] | None = None
    rules = {
        "plugin_unique_identifier": (REQUIRED, IDENTIFIER),
        "user_id": (REQUIRED, at_most(_MOST_USER)),
        "name": (REQUIRED, at_most(_MOST_NAME)),
    }


class EndpointUpdateForm(Form):
    """Another name and other settings."""

    endpoint_id: str = ""
    user_id: str = ""
    name: str = ""
    settings: dict[str, Any] | None = None
    rules = {
        "endpoint_id": (REQUIRED,),
        "user_id": (REQUIRED, at_most(_MOST_USER)),
        "name": (REQUIRED, at_most(_MOST_NAME)),
    }


class EndpointForm(Form):
    """One endpoint."""

    endpoint_id: str = ""
    rules = {"endpoint_id": (REQUIRED,)}


class EndpointPageForm(PageForm):
    """A page of endpoints, at most 100."""

    rules = {**PageForm.rules, "page_size": (REQUIRED, at_least(1), at_most(100))}


class EndpointsOfPluginForm(EndpointPageForm):
    """A page of one plugin's endpoints."""

    plugin_id: str = ""
    rules = {**EndpointPageForm.rules, "plugin_id": (REQUIRED,)}
