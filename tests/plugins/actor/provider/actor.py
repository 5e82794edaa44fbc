from collections.abc import Mapping
from typing import Any

from dify_plugin import ToolProvider
from dify_plugin.entities.oauth import ToolOAuthCredentials
from dify_plugin.errors.tool import ToolProviderCredentialValidationError
from werkzeug import Request


class ActorProvider(ToolProvider):
    """Credentials are good unless the key is ``bad``."""

    def _validate_credentials(self, credentials: dict[str, Any]) -> None:
        if credentials.get("key") == "bad":
            raise ToolProviderCredentialValidationError("bad key")

    def _oauth_get_authorization_url(self, redirect_uri: str, system_credentials: Mapping) -> str:
        return f"{redirect_uri}?client={system_credentials['client_id']}"

    def _oauth_get_credentials(
        self, redirect_uri: str, system_credentials: Mapping, request: Request
    ) -> ToolOAuthCredentials:
        token = {"access_token": request.args["code"]}
        return ToolOAuthCredentials(credentials=token, expires_at=1788888888)

    def _oauth_refresh_credentials(
        self, redirect_uri: str, system_credentials: Mapping, credentials: Mapping
    ) -> ToolOAuthCredentials:
        token = {"access_token": credentials["access_token"] + " again"}
        return ToolOAuthCredentials(credentials=token, expires_at=-1)
