from collections.abc import Mapping

from dify_plugin import ModelProvider
from dify_plugin.entities.model import ModelType


class ParrotProvider(ModelProvider):
    """Provider of the parrot; its model knows which credentials are wrong."""

    def validate_provider_credentials(self, credentials: Mapping) -> None:
        self.get_model_instance(ModelType.LLM).validate_credentials("parrot", credentials)
