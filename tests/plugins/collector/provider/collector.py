from collections.abc import Mapping
from typing import Any

from dify_plugin.entities.datasource import DatasourceOAuthCredentials
from dify_plugin.errors.tool import ToolProviderCredentialValidationError
from dify_plugin.interfaces.datasource import DatasourceProvider
from werkzeug import Request


class CollectorProvider(DatasourceProvider):
    """Credentials are good unless the key is ``bad``; those of OAuth never expire."""

    def _validate_credentials(self, credentials: Mapping[str, Any]) -> None:
        if credentials.get("key") == "bad":
            raise ToolProviderCredentialValidationError("bad key")

    def _oauth_get_authorization_url(self, redirect_uri: str, system_credentials: Mapping) -> str:
        return f"{redirect_uri}?client={system_credentials['client_id']}"

    def _oauth_get_credentials(
        self, redirect_uri: str, system_credentials: Mapping, request: Request
    ) -> DatasourceOAuthCredentials:
        token = {"access_token": request.args["code"]}
        return DatasourceOAuthCredentials(name="Ada", credentials=token)

    def _oauth_refresh_credentials(
        self, redirect_uri: str, system_credentials: Mapping, credentials: Mapping
    ) -> DatasourceOAuthCredentials:
        token = {"access_token": credentials["access_token"] + " again"}
        return DatasourceOAuthCredentials(credentials=token, expires_at=1788888888)
