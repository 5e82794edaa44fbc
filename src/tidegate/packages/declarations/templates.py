"""Templates of model parameters: what ``use_template`` fills in (spec/plugin/08 section 6)."""

# ruff: noqa: RUF001 - Chinese texts have Chinese punctuation

from __future__ import annotations

from typing import Final

from tidegate.packages.shapes import Json


def _range(kind: str, default: float, least: float, most: float, precision: int) -> Json:
    return {
        "type": kind,
        "default": default,
        "min": least,
        "max": most,
        "precision": precision,
    }


def _help(english: str, chinese: str) -> Json:
    return {"help": {"en_US": english, "zh_Hans": chinese}}


#: Fields by template; a rule takes those that it does not have itself.
TEMPLATES: Final[dict[str, Json]] = {
    "temperature": _range("float", 0, 0, 1, 2)
    | _help(
        "How freely the model chooses its words: 0 takes the likeliest one each time, "
        "larger values vary more.",
        "决定模型选词的自由程度：0 总是取最可能的词，数值越大变化越多。",
    ),
    "top_p": _range("float", 1, 0, 1, 2)
    | _help(
        "Only the likeliest words whose probabilities add up to this value are considered.",
        "只考虑累计概率达到该值的最可能的词。",
    ),
    "top_k": _range("int", 50, 1, 100, 0)
    | _help(
        "Only this many of the likeliest words are considered at each step.",
        "每一步只考虑这么多个最可能的词。",
    ),
    "presence_penalty": _range("float", 0, 0, 1, 2)
    | _help(
        "Makes words that were used already less likely, however often they occurred.",
        "降低已出现过的词再次出现的可能性，与出现次数无关。",
    ),
    "frequency_penalty": _range("float", 0, 0, 1, 2)
    | _help(
        "Makes words less likely the more often they were used already.",
        "词出现得越多，再次出现的可能性降低得越多。",
    ),
    "max_tokens": _range("int", 64, 1, 2048, 0)
    | _help(
        "The answer ends after this many tokens; longer ones are cut off.",
        "回答最多包含这么多个 token，超出部分会被截断。",
    ),
    "response_format": {"type": "string", "options": ["JSON", "XML"]}
    | _help(
        "The format that the answer should have.",
        "回答应采用的格式。",
    ),
    "json_schema": {"type": "string"}
    | _help(
        "A JSON schema that the answer has to follow.",
        "回答必须遵循的 JSON schema。",
    ),
}
