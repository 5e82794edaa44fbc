import time
from collections.abc import Generator
from typing import Any

from dify_plugin import Tool
from dify_plugin.entities.tool import ToolInvokeMessage

# Long enough that one sees the words arrive, short enough that nobody waits.
PAUSE_SECONDS = 0.05


class GreetTool(Tool):
    """Streams a greeting word by word: one text message, and so one chunk, per word."""

    def _invoke(self, tool_parameters: dict[str, Any]) -> Generator[ToolInvokeMessage, None, None]:
        name = str(tool_parameters.get("name") or "world")
        # A model, or a person with curl, may send a number as text.
        count = min(max(int(tool_parameters.get("count") or 1), 1), 100)
        for _ in range(count):
            for word in f"Hello, {name}! Nice to meet you.\n".split(" "):
                yield self.create_text_message(word if word.endswith("\n") else f"{word} ")
                time.sleep(PAUSE_SECONDS)
