"""The provider: nothing to validate."""

from typing import Any

from dify_plugin import ToolProvider


class BadActorProvider(ToolProvider):
    """Takes any credentials."""

    def _validate_credentials(self, credentials: dict[str, Any]) -> None:
        del credentials
