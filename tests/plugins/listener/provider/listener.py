from collections.abc import Mapping
from typing import Any

from dify_plugin.entities import I18nObject, ParameterOption
from dify_plugin.entities.oauth import OAuthCredentials, TriggerOAuthCredentials
from dify_plugin.entities.provider_config import CredentialType
from dify_plugin.entities.trigger import EventDispatch, Subscription, UnsubscribeResult
from dify_plugin.errors.trigger import TriggerProviderCredentialValidationError
from dify_plugin.interfaces.trigger import Trigger, TriggerSubscriptionConstructor
from werkzeug import Request, Response


class Listener(Trigger):
    """Whatever comes rings."""

    def _dispatch_event(self, subscription: Subscription, request: Request) -> EventDispatch:
        answer = Response(f"heard {request.path}", status=202)
        return EventDispatch(user_id="99", events=["rang"], response=answer, payload={"topic": "t"})


class Constructor(TriggerSubscriptionConstructor):
    """Subscriptions that nobody has to be asked for."""

    def _validate_api_key(self, credentials: Mapping[str, Any]) -> None:
        if credentials.get("key") == "bad":
            raise TriggerProviderCredentialValidationError("bad key")

    def _oauth_get_authorization_url(self, redirect_uri: str, system_credentials: Mapping) -> str:
        return f"{redirect_uri}?client={system_credentials['client_id']}"

    def _oauth_get_credentials(
        self, redirect_uri: str, system_credentials: Mapping, request: Request
    ) -> TriggerOAuthCredentials:
        return TriggerOAuthCredentials(credentials={"access_token": request.args["code"]})

    def _oauth_refresh_credentials(
        self, redirect_uri: str, system_credentials: Mapping, credentials: Mapping
    ) -> OAuthCredentials:
        token = {"access_token": credentials["access_token"] + " again"}
        return OAuthCredentials(credentials=token, expires_at=1788888888)

    def _create_subscription(
        self, endpoint: str, parameters: Mapping, credentials: Mapping, credential_type: str
    ) -> Subscription:
        kept = {"type": CredentialType(credential_type).value}
        return Subscription(
            expires_at=-1, endpoint=endpoint, parameters=parameters, properties=kept
        )

    def _delete_subscription(
        self, subscription: Subscription, credentials: Mapping, credential_type: CredentialType
    ) -> UnsubscribeResult:
        return UnsubscribeResult(success=True, message=f"left {subscription.endpoint}")

    def _refresh_subscription(
        self, subscription: Subscription, credentials: Mapping, credential_type: CredentialType
    ) -> Subscription:
        return subscription.model_copy(update={"expires_at": 1788888888})

    def _fetch_parameter_options(
        self, parameter: str, credentials: Mapping, credential_type: CredentialType
    ) -> list[ParameterOption]:
        return [ParameterOption(value=parameter, label=I18nObject(en_US="One"))]
