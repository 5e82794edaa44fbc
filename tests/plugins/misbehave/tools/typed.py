"""A tool with an output schema: what fits it, what does not, and what ends before it is known."""

import time
from collections.abc import Generator
from typing import Any

from dify_plugin import Tool
from dify_plugin.entities.tool import ToolInvokeMessage


class TypedTool(Tool):
    def _invoke(self, tool_parameters: dict[str, Any]) -> Generator[ToolInvokeMessage, None, None]:
        deed = str(tool_parameters["deed"])
        for number in range(50):
            yield self.create_variable_message(f"v{number}", {"n": number})
            yield self.create_text_message(f"{number}")
            if number % 10 == 0:
                time.sleep(0.001)
        if deed == "raises":
            raise ValueError("deliberate")
        if deed == "unfit":
            yield self.create_variable_message("count", "not a number")
        elif deed == "missing":
            yield self.create_variable_message("text", "count is missing")
        else:
            yield self.create_variable_message("count", 3)
