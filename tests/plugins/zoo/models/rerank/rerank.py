from collections.abc import Mapping

from dify_plugin import RerankModel
from dify_plugin.entities.model.rerank import MultiModalRerankResult, RerankDocument, RerankResult
from dify_plugin.errors.model import InvokeError


class ZooRerank(RerankModel):
    """The other way round."""

    def _invoke(
        self, model, credentials, query, docs, score_threshold=None, top_n=None, user=None
    ) -> RerankResult:
        return RerankResult(model=model, docs=_reversed(docs))

    def _invoke_multimodal(
        self, model, credentials, query, docs, score_threshold=None, top_n=None, user=None
    ) -> MultiModalRerankResult:
        return MultiModalRerankResult(model=model, docs=_reversed([one.content for one in docs]))

    def validate_credentials(self, model: str, credentials: Mapping) -> None:
        del credentials

    @property
    def _invoke_error_mapping(self) -> dict[type[InvokeError], list[type[Exception]]]:
        return {InvokeError: [ValueError]}


def _reversed(texts: list[str]) -> list[RerankDocument]:
    found = [RerankDocument(index=i, text=text, score=0.5) for i, text in enumerate(texts)]
    return found[::-1]
