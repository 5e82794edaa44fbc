from collections.abc import Mapping

from dify_plugin import ModerationModel
from dify_plugin.errors.model import InvokeError


class ZooKeeper(ModerationModel):
    """Does not like one word."""

    def _invoke(self, model: str, credentials: dict, text: str, user=None) -> bool:
        return "bad" in text

    def validate_credentials(self, model: str, credentials: Mapping) -> None:
        del credentials

    @property
    def _invoke_error_mapping(self) -> dict[type[InvokeError], list[type[Exception]]]:
        return {InvokeError: [ValueError]}
