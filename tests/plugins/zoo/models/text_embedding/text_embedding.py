from collections.abc import Mapping

from dify_plugin import TextEmbeddingModel
from dify_plugin.entities.model import EmbeddingInputType
from dify_plugin.entities.model.text_embedding import (
    EmbeddingUsage,
    MultiModalContent,
    MultiModalEmbeddingResult,
    TextEmbeddingResult,
)
from dify_plugin.errors.model import InvokeError

USAGE = EmbeddingUsage(
    tokens=1, total_tokens=1, unit_price=0, price_unit=0, total_price=0, currency="USD", latency=0
)


class ZooEmbedding(TextEmbeddingModel):
    """The length of each text."""

    def _invoke(self, model, credentials, texts, user=None, input_type=EmbeddingInputType.DOCUMENT):
        embeddings = [[float(len(text))] for text in texts]
        return TextEmbeddingResult(model=model, embeddings=embeddings, usage=USAGE)

    def _invoke_multimodal(
        self,
        model: str,
        credentials: dict,
        documents: list[MultiModalContent],
        user: str | None = None,
        input_type: EmbeddingInputType = EmbeddingInputType.DOCUMENT,
    ) -> MultiModalEmbeddingResult:
        embeddings = [[float(len(one.content))] for one in documents]
        return MultiModalEmbeddingResult(model=model, embeddings=embeddings, usage=USAGE)

    def get_num_tokens(self, model: str, credentials: dict, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    def validate_credentials(self, model: str, credentials: Mapping) -> None:
        del credentials

    @property
    def _invoke_error_mapping(self) -> dict[type[InvokeError], list[type[Exception]]]:
        return {InvokeError: [ValueError]}
