"""Embedding requests: split within the limit, merged without loss."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tidegate.errors import MessageTooLarge, ProtocolError
from tidegate.wire.embeddings import Batch, merge, split
from tidegate.wire.session import request_line

EMBED, COUNT = "invoke_text_embedding", "get_text_embedding_num_tokens"
USAGE = {
    "tokens": 2, "total_tokens": 3, "unit_price": "0.1", "price_unit": "0.001",
    "total_price": "0.1", "currency": "USD", "latency": 0.25,
}  # fmt: skip


def line(texts: list[str]) -> bytes:
    data = json.dumps({"texts": texts, "model": "e"}, ensure_ascii=False).encode()
    made = request_line("s", user_id="u", type="model", action=EMBED, data=data)
    assert isinstance(made, bytes)
    return made


def texts_of(batch: Batch) -> list[str]:
    return json.loads(batch.line)["data"]["texts"]


def answer(vectors: list[list[float]], **changes: object) -> list[bytes]:
    usage = {**USAGE, **{key: value for key, value in changes.items() if key in USAGE}}
    model = changes.get("model", "e")
    return [json.dumps({"model": model, "embeddings": vectors, "usage": usage}).encode()]


@given(some.lists(some.text(max_size=60), max_size=30), some.integers(600, 1500))
def test_batches_fit_keep_the_order_and_lose_nothing(texts, limit):
    batches = split(EMBED, line(texts), limit)
    assert [text for batch in batches for text in texts_of(batch)] == texts
    assert all(len(batch.line) <= limit for batch in batches)
    assert [batch.texts for batch in batches] == [len(texts_of(batch)) for batch in batches]


def test_what_fits_is_one_batch_with_all_its_fields():
    whole = line(["a", "b"])
    (batch,) = split(EMBED, whole, 10_000)
    assert json.loads(batch.line) == json.loads(whole)


def test_a_text_that_does_not_fit_is_named():
    with pytest.raises(MessageTooLarge, match="max_request_bytes=500 item_index=1"):
        split(EMBED, line(["a", "x" * 600]), 500)


def test_a_request_that_is_too_large_without_texts_is_refused():
    with pytest.raises(MessageTooLarge, match=r"max_request_bytes=50$"):
        split(EMBED, line(["a"]), 50)


def test_what_cannot_be_read_is_refused():
    with pytest.raises(ProtocolError):
        split(EMBED, b'{"data":7}', 10)


def batches(*sizes: int) -> list[Batch]:
    return [Batch(b"{}", size) for size in sizes]


def test_embeddings_are_joined_and_usage_is_summed():
    answers = [answer([[1.0], [2.5]]), answer([[3.0]], total_price="0.25", latency=0.5)]
    merged = json.loads(merge(EMBED, batches(2, 1), answers))
    assert merged["embeddings"] == [[1.0], [2.5], [3.0]]
    assert merged["usage"] == {
        **USAGE, "tokens": 4, "total_tokens": 6, "total_price": "0.35", "latency": 0.75,
    }  # fmt: skip


def test_counts_are_joined():
    answers = [[b'{"num_tokens":[1,2]}'], [b'{"num_tokens":[3]}']]
    assert json.loads(merge(COUNT, batches(2, 1), answers)) == {"num_tokens": [1, 2, 3]}


@pytest.mark.parametrize(
    ("action", "second", "reason"),
    [
        (EMBED, [], "response_count"),
        (EMBED, answer([[1.0]]) * 2, "response_count"),
        (EMBED, [b"garbage"], "response_count"),
        (EMBED, [b"[]"], "response_count"),
        (EMBED, answer([]), "embedding_count"),
        (EMBED, [b'{"model":"e","embeddings":[[1.0]],"usage":{}}'], "missing_usage_field"),
        (EMBED, answer([[1.0]], model="f"), "model"),
        (EMBED, answer([[1.0]], unit_price="9"), "unit_price"),
        (EMBED, answer([[1.0]], price_unit="9"), "price_unit"),
        (EMBED, answer([[1.0]], currency="EUR"), "currency"),
        (COUNT, [b'{"num_tokens":[]}'], "token_count"),
        (COUNT, [b'{"num_tokens":7}'], "token_count"),
    ],
)
def test_answers_that_do_not_fit_together_are_refused_with_the_reason(action, second, reason):
    first = answer([[1.0]]) if action == EMBED else [b'{"num_tokens":[1]}']
    with pytest.raises(ProtocolError) as caught:
        merge(action, batches(1, 1), [first, second])
    text = caught.value.message
    assert text.startswith(f"ServerlessBatchResultMismatch: action={action} batch_index=1 ")
    assert text.endswith(f"reason={reason}")
