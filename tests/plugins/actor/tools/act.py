from collections.abc import Generator
from typing import Any

from dify_plugin import Tool
from dify_plugin.entities import I18nObject, ParameterOption
from dify_plugin.entities.tool import ToolInvokeMessage


class ActTool(Tool):
    """One message of each kind, then a file of 20,000 bytes."""

    def _invoke(self, tool_parameters: dict[str, Any]) -> Generator[ToolInvokeMessage, None, None]:
        yield self.create_text_message("text")
        yield self.create_json_message({"parameters": tool_parameters})
        yield self.create_link_message("https://link.example")
        yield self.create_image_message("https://image.example/x.png")
        yield self.create_variable_message("name", "value")
        yield self.create_blob_message(b"x" * 20_000, meta={"mime_type": "text/plain"})

    def _fetch_parameter_options(self, parameter: str) -> list[ParameterOption]:
        key = self.runtime.credentials.get("key", "")
        return [ParameterOption(value=f"{parameter} {key}", label=I18nObject(en_US="One"))]
