from typing import Any

from dify_plugin import ToolProvider


class TickerProvider(ToolProvider):
    """Needs no credentials, so any are fine."""

    def _validate_credentials(self, credentials: dict[str, Any]) -> None:
        del credentials
