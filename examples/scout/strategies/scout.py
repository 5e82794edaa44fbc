from collections.abc import Generator
from typing import Any

from dify_plugin.entities.agent import AgentInvokeMessage
from dify_plugin.entities.model.llm import LLMModelConfig
from dify_plugin.entities.model.message import SystemPromptMessage, UserPromptMessage
from dify_plugin.entities.tool import ToolProviderType
from dify_plugin.interfaces.agent import AgentModelConfig, AgentStrategy, ToolEntity
from pydantic import BaseModel

PARROT = LLMModelConfig(provider="tidegate/parrot/parrot", model="parrot", mode="chat")
GREET = ("tidegate/hello/hello", "greet")
START = AgentInvokeMessage.LogMessage.LogStatus.START

type Answer = Generator[AgentInvokeMessage, None, None]


class ScoutParameters(BaseModel):
    """What the strategy is given; the sample model and the sample tool where nothing is."""

    query: str
    model: AgentModelConfig | None = None
    tools: list[ToolEntity] | None = None


class ScoutStrategy(AgentStrategy):
    """Two calls of a tool and one of a model, each through the host."""

    def _invoke(self, parameters: dict[str, Any]) -> Answer:
        given = ScoutParameters(**parameters)
        yield from self._greet(given)
        yield from self._think(given)
        yield from self._greet(given)

    def _greet(self, given: ScoutParameters) -> Answer:
        kind, (provider, name) = ToolProviderType.BUILT_IN, GREET
        if given.tools:
            tool = given.tools[0]
            kind, provider, name = tool.provider_type, tool.identity.provider, tool.identity.name
        step = self.create_log_message(f"tool {name}", {"name": given.query}, status=START)
        yield step
        said = ""
        for message in self.session.tool.invoke(kind, provider, name, {"name": given.query}):
            if message.type.value == "text":
                said += message.message.text
                yield self.create_text_message(message.message.text)
        yield self.finish_log_message(step, data={"said": said})

    def _think(self, given: ScoutParameters) -> Answer:
        model = given.model or PARROT
        step = self.create_log_message(f"model {model.model}", {"query": given.query}, status=START)
        yield step
        messages = [
            SystemPromptMessage(content="You accompany somebody who greets people. Say one thing."),
            UserPromptMessage(content=given.query),
        ]
        tokens = 0
        for chunk in self.session.model.llm.invoke(
            LLMModelConfig(**model.model_dump(mode="json")), messages, stream=True
        ):
            if chunk.delta.message.content:
                yield self.create_text_message(chunk.delta.message.get_text_content())
            if chunk.delta.usage:
                tokens = chunk.delta.usage.total_tokens
        yield self.create_text_message("\n")
        yield self.finish_log_message(step, data={"tokens": tokens})
