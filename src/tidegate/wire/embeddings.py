"""Embedding requests that are too large for one call of a function: split, and merged again.

Only ``invoke_text_embedding`` and ``get_text_embedding_num_tokens`` are split, and only where
plugins are functions (spec/plugin/03 section 5). Batches keep the order of their texts; each must
give exactly one answer, with as many results as it had texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final, final

import msgspec
from msgspec import Raw

from tidegate.errors import MessageTooLarge, ProtocolError
from tidegate.wire.session import UNREADABLE

SPLIT: Final = frozenset({"invoke_text_embedding", "get_text_embedding_num_tokens"})
_SETTING: Final = "MAX_SERVERLESS_REQUEST_BYTES"
# Of one model all batches have these in common; where they differ somebody would pay a price that
# nobody named.
_SAME: Final = ("model", "unit_price", "price_unit", "currency")
_SUMMED: Final = ("tokens", "total_tokens")

_decode_fields: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_list: Final = msgspec.json.Decoder(list[Raw]).decode
_encode: Final = msgspec.json.encode


@final
@dataclass(frozen=True, slots=True)
class Batch:
    """One request line, and how many texts are in it."""

    line: bytes
    texts: int


def too_large(action: str, size: int, limit: int, item: int | None = None) -> MessageTooLarge:
    """The error of a request that no function takes."""
    at = "" if item is None else f" item_index={item}"
    return MessageTooLarge(
        f"ServerlessPayloadTooLarge: action={action} payload_bytes={size} "
        f"max_request_bytes={limit}{at}",
        limit=limit,
        size=size,
        setting=_SETTING,
    )


def split(action: str, line: bytes, limit: int) -> list[Batch]:
    """The batches of one request; a single one when it fits.

    MessageTooLarge when even one text is too large for a call.
    """
    request, data, texts = _opened(line)
    # What each batch costs without texts; then sizes are added up instead of encoding again and
    # again.
    base = len(_closed(request, data, []))
    if base > limit:
        raise too_large(action, base, limit)
    batches: list[list[Raw]] = [[]]
    size = base
    for index, one in enumerate(texts):
        # The comma before it, but for the first of a batch.
        length = len(bytes(one)) + bool(batches[-1])
        if base + len(bytes(one)) > limit:
            raise too_large(action, base + len(bytes(one)), limit, index)
        if size + length > limit:
            batches.append([])
            size, length = base, len(bytes(one))
        batches[-1].append(one)
        size += length
    return [Batch(_closed(request, data, part), len(part)) for part in batches]


def _opened(line: bytes) -> tuple[dict[str, Raw], dict[str, Raw], list[Raw]]:
    try:
        request = _decode_fields(line)
        data = _decode_fields(request["data"])
        return request, data, _decode_list(data.get("texts", Raw(b"[]")))
    except (*UNREADABLE, KeyError) as error:
        raise ProtocolError(f"the request cannot be split into batches: {error}") from None


def _closed(request: dict[str, Raw], data: dict[str, Raw], texts: list[Raw]) -> bytes:
    # Texts as the bytes that came: decoded and encoded they might be longer than was counted.
    inner = {**data, "texts": Raw(b"[" + b",".join(map(bytes, texts)) + b"]")}
    return _encode({**request, "data": Raw(_encode(inner))})


def merge(action: str, batches: Sequence[Batch], answers: Sequence[Sequence[bytes]]) -> bytes:
    """The one answer of all batches. ``answers`` are the chunks that each of them gave.

    ProtocolError (``ServerlessBatchResultMismatch: …``) when they do not fit together.
    """
    results = [
        _only(action, index, batch, chunks)
        for index, (batch, chunks) in enumerate(zip(batches, answers, strict=True))
    ]
    if action == "invoke_text_embedding":
        return _merged_embeddings(action, batches, results)
    return _merged_counts(action, batches, results)


def _only(action: str, index: int, batch: Batch, chunks: Sequence[bytes]) -> dict[str, Any]:
    if len(chunks) == 1:
        try:
            answer = msgspec.json.decode(bytes(chunks[0]))
        except UNREADABLE:
            answer = None
        if isinstance(answer, dict):
            return answer
    raise _mismatch(action, index, batch, -1, len(chunks), "response_count")


def _merged_counts(
    action: str, batches: Sequence[Batch], results: Sequence[dict[str, Any]]
) -> bytes:
    counts: list[Any] = []
    for index, (batch, result) in enumerate(zip(batches, results, strict=True)):
        found = result.get("num_tokens")
        if not isinstance(found, list) or len(found) != batch.texts:
            raise _mismatch(action, index, batch, _length(found), 1, "token_count")
        counts += found
    return _encode({**results[0], "num_tokens": counts})


def _merged_embeddings(
    action: str, batches: Sequence[Batch], results: Sequence[dict[str, Any]]
) -> bytes:
    embeddings: list[Any] = []
    usages: list[dict[str, Any]] = []
    for index, (batch, result) in enumerate(zip(batches, results, strict=True)):
        found = result.get("embeddings")
        if not isinstance(found, list) or len(found) != batch.texts:
            raise _mismatch(action, index, batch, _length(found), 1, "embedding_count")
        reason = _unlike(results[0], result)
        if reason:
            raise _mismatch(action, index, batch, len(found), 1, reason)
        embeddings += found
        usages.append(result["usage"])
    merged = {**results[0], "embeddings": embeddings, "usage": _merged_usage(usages)}
    return _encode(merged)


def _unlike(first: dict[str, Any], other: dict[str, Any]) -> str:
    """Why two answers cannot be one; empty when they can."""
    usage = other.get("usage")
    # Some of it would be wrong by default: a price of nothing is worse than an error.
    needed = (*_SUMMED, "total_price", "latency", *_SAME[1:])
    if not isinstance(usage, dict) or any(name not in usage for name in needed):
        return "missing_usage_field"
    if first.get("model") != other.get("model"):
        return "model"
    before = first["usage"]
    return next((name for name in _SAME[1:] if str(before[name]) != str(usage[name])), "")


def _merged_usage(usages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    merged = dict(usages[0])
    for name in _SUMMED:
        merged[name] = sum(usage[name] for usage in usages)
    merged["total_price"] = _sum_of_prices([usage["total_price"] for usage in usages])
    merged["latency"] = sum(usage["latency"] for usage in usages)
    return merged


def _sum_of_prices(prices: Sequence[Any]) -> str:
    try:
        # Prices are texts of decimals: as floats, a thousand batches would not add up.
        return format(sum(Decimal(str(price)) for price in prices), "f")
    # A plugin's price may be any text; it is worth no call.
    except InvalidOperation:
        return "0"


def _mismatch(
    action: str, index: int, batch: Batch, actual: int, responses: int, reason: str
) -> ProtocolError:
    return ProtocolError(
        f"ServerlessBatchResultMismatch: action={action} batch_index={index} "
        f"expected_items={batch.texts} actual_items={max(0, actual)} response_count={responses} "
        f"reason={reason}"
    )


def _length(found: Any) -> int:
    return len(found) if isinstance(found, list) else 0
