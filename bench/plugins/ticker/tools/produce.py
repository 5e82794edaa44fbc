from collections.abc import Generator
from typing import Any

from dify_plugin import Tool
from dify_plugin.entities.tool import ToolInvokeMessage


class ProduceTool(Tool):
    """Streams ``count`` messages of ``size`` bytes without a pause, after some ``work``."""

    def _invoke(self, tool_parameters: dict[str, Any]) -> Generator[ToolInvokeMessage, None, None]:
        for _ in range(int(tool_parameters.get("work", 0))):
            sum(range(10_000))
        text = "x" * int(tool_parameters["size"])
        for _ in range(int(tool_parameters["count"])):
            yield self.create_text_message(text)
