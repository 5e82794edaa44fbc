import time
from collections.abc import Generator, Mapping

from dify_plugin import LargeLanguageModel
from dify_plugin.entities.model.llm import LLMResult, LLMResultChunk, LLMResultChunkDelta, LLMUsage
from dify_plugin.entities.model.message import (
    AssistantPromptMessage,
    PromptMessage,
    PromptMessageTool,
)
from dify_plugin.errors.model import CredentialsValidateFailedError, InvokeError

TEXT = (
    "Tides come and go, and a good harbour lets every ship in and out on its own. "
    "This is a parrot: it says the same words each time, one after the other, and counts them."
)


class ParrotModel(LargeLanguageModel):
    """Says TEXT, one word per chunk. A token is a word."""

    def _invoke(
        self,
        model: str,
        credentials: dict,
        prompt_messages: list[PromptMessage],
        model_parameters: dict,
        tools: list[PromptMessageTool] | None = None,
        stop: list[str] | None = None,
        stream: bool = True,
        user: str | None = None,
    ) -> LLMResult | Generator[LLMResultChunk, None, None]:
        words = _words(model_parameters, stop or [])
        prompt_tokens = self.get_num_tokens(model, credentials, prompt_messages, tools)
        usage = self._calc_response_usage(model, credentials, prompt_tokens, len(words))
        if stream:
            return _chunks(model, words, usage, float(model_parameters.get("pause", 0.05)))
        message = AssistantPromptMessage(content="".join(words), tool_calls=[])
        return LLMResult(model=model, message=message, usage=usage)

    def get_num_tokens(
        self,
        model: str,
        credentials: dict,
        prompt_messages: list[PromptMessage],
        tools: list[PromptMessageTool] | None = None,
    ) -> int:
        return sum(len(message.get_text_content().split()) for message in prompt_messages)

    def validate_credentials(self, model: str, credentials: Mapping) -> None:
        if credentials.get("word") == "wrong":
            raise CredentialsValidateFailedError("the parrot does not like this word")

    @property
    def _invoke_error_mapping(self) -> dict[type[InvokeError], list[type[Exception]]]:
        return {InvokeError: [ValueError]}


def _words(parameters: Mapping, stop: list[str]) -> list[str]:
    text = TEXT
    for mark in filter(None, stop):
        text = text.split(mark, 1)[0]
    words = text.split(" ")[: max(1, int(parameters.get("max_tokens", 512)))]
    return [word if index == 0 else f" {word}" for index, word in enumerate(words)]


def _chunks(
    model: str, words: list[str], usage: LLMUsage, pause: float
) -> Generator[LLMResultChunk, None, None]:
    for index, word in enumerate(words):
        last = index == len(words) - 1
        delta = LLMResultChunkDelta(
            index=index,
            message=AssistantPromptMessage(content=word, tool_calls=[]),
            usage=usage if last else None,
            finish_reason="stop" if last else None,
        )
        yield LLMResultChunk(model=model, delta=delta)
        if not last:
            time.sleep(pause)
