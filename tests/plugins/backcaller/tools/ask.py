from collections.abc import Generator
from typing import Any

from dify_plugin import Tool
from dify_plugin.entities.tool import ToolInvokeMessage

import asking


class AskTool(Tool):
    """Each result becomes a json message; an exception of the SDK becomes one with ``error``."""

    def _invoke(self, tool_parameters: dict[str, Any]) -> Generator[ToolInvokeMessage, None, None]:
        if tool_parameters.get("what") == "file":  # for its own back-call to a tool
            yield self.create_blob_message(b"x" * 20_000, meta={"mime_type": "text/plain"})
            return
        for result in asking.ask(self.session, tool_parameters):
            yield self.create_json_message(result)
