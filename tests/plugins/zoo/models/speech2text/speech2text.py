from collections.abc import Mapping
from typing import IO

from dify_plugin import Speech2TextModel
from dify_plugin.errors.model import InvokeError


class ZooEar(Speech2TextModel):
    """Hears the letters."""

    def _invoke(self, model: str, credentials: dict, file: IO[bytes], user=None) -> str:
        return file.read().decode()

    def validate_credentials(self, model: str, credentials: Mapping) -> None:
        del credentials

    @property
    def _invoke_error_mapping(self) -> dict[type[InvokeError], list[type[Exception]]]:
        return {InvokeError: [ValueError]}
