import json
import time
from collections.abc import Generator, Mapping

from dify_plugin import LargeLanguageModel
from dify_plugin.entities.model.llm import (
    LLMPollingResult,
    LLMResult,
    LLMResultChunk,
    LLMResultChunkDelta,
)
from dify_plugin.entities.model.message import AssistantPromptMessage, PromptMessage
from dify_plugin.errors.model import InvokeError, InvokeRateLimitError


class ZooModel(LargeLanguageModel):
    """Says what it was asked: ``model``, parameters, credentials and messages, in words."""

    def _invoke(
        self,
        model: str,
        credentials: dict,
        prompt_messages: list[PromptMessage],
        model_parameters: dict,
        tools: list | None = None,
        stop: list[str] | None = None,
        stream: bool = True,
        user: str | None = None,
    ) -> LLMResult | Generator[LLMResultChunk, None, None]:
        text = _answer(model, credentials, prompt_messages, model_parameters, user)
        pause = float(model_parameters.get("pause", 0))
        usage = self._calc_response_usage(model, credentials, 1, 2)
        if not stream:
            message = AssistantPromptMessage(content=text, tool_calls=[])
            return LLMResult(model=model, message=message, usage=usage)
        return self._chunks(model, text, usage, pause)

    def _chunks(self, model, text, usage, pause):
        words = text.split(" ")
        for index, word in enumerate(words):
            last = index == len(words) - 1
            content = word if last else word + " "
            yield LLMResultChunk(
                model=model,
                delta=LLMResultChunkDelta(
                    index=index,
                    message=AssistantPromptMessage(content=content, tool_calls=[]),
                    usage=usage if last else None,
                    finish_reason="stop" if last else None,
                ),
            )
            time.sleep(pause)

    def _start_polling(self, model, credentials, prompt_messages, model_parameters, **rest):
        state = {"asked": prompt_messages[-1].content}
        return LLMPollingResult(status="running", plugin_state=state, next_check_after_seconds=1)

    def _check_polling(self, model, credentials, plugin_state, user=None) -> LLMPollingResult:
        message = AssistantPromptMessage(content=f"{model} heard {plugin_state['asked']}")
        usage = self._calc_response_usage(model, credentials, 1, 2)
        result = LLMResult(model=model, message=message, usage=usage)
        return LLMPollingResult(status="succeeded", result=result)

    def get_num_tokens(self, model, credentials, prompt_messages, tools=None) -> int:
        return 1

    def validate_credentials(self, model: str, credentials: Mapping) -> None:
        del credentials

    @property
    def _invoke_error_mapping(self) -> dict[type[InvokeError], list[type[Exception]]]:
        return {InvokeRateLimitError: [PermissionError], InvokeError: [ValueError]}


def _answer(model, credentials, messages, parameters, user) -> str:
    prompt = messages[-1].content
    if prompt == "rate limit":
        raise PermissionError("slow down")
    if model == "short":
        return "two words"
    if prompt == "no json":
        return "I would rather not"
    if "json_schema" in parameters:
        return json.dumps({"name": "by parameter", "schema": json.loads(parameters["json_schema"])})
    if "JSON schema" in str(messages[0].content):
        return 'Sure: ```json\n{"name": "by words"}\n```'
    if str(messages[0].content).startswith("Summarize"):
        return f"{model} read {len(prompt)} characters"
    return f"{model} heard {prompt} with {credentials.get('word', 'nothing')} for {user}"
