from collections.abc import Generator, Mapping

from dify_plugin import TTSModel
from dify_plugin.errors.model import InvokeError


class ZooVoice(TTSModel):
    """Says the letters."""

    def _invoke(
        self, model, tenant_id, credentials, content_text, voice, user=None
    ) -> bytes | Generator[bytes, None, None]:
        for word in content_text.split(" "):
            yield word.encode()

    def get_tts_model_voices(self, model, credentials, language=None) -> list[dict]:
        return [{"name": "Alto", "value": "alto"}]

    def validate_credentials(self, model: str, credentials: Mapping) -> None:
        del credentials

    @property
    def _invoke_error_mapping(self) -> dict[type[InvokeError], list[type[Exception]]]:
        return {InvokeError: [ValueError]}
