"""Output rules: what is a violation, and what each mode does with it."""

import json

import pytest

from tidegate.calls import OutputRules, RuleBook
from tidegate.calls.output_rules import MAX_VARIABLE_BYTES, MAX_VARIABLES
from tidegate.calls.schemas import MAX_DEPTH, SchemaCache, SchemaInvalid, compile_schema
from tidegate.errors import OutputSchemaViolation
from tidegate.settings import Settings
from tidegate.telemetry import metrics

COUNT = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}


def variable(name, value, stream=False, **extra):
    message = {"variable_name": name, "variable_value": value, "stream": stream, **extra}
    return json.dumps({"type": "variable", "message": message, "meta": None}).encode()


def run(schema, *chunks, mode="enforce"):
    rules = OutputRules("acme/tool", mode, compile_schema(schema) if schema else None)
    for chunk in chunks:
        passed, error = rules.apply([chunk])
        assert (passed, error) == ([chunk], None)
    rules.finish()


def violation(schema, *chunks):
    with pytest.raises(OutputSchemaViolation) as caught:
        run(schema, *chunks)
    return caught.value


def test_output_that_fits_passes():
    run(COUNT, variable("count", 3), variable("unknown", "is allowed"))


def test_no_schema_and_no_variables_are_accepted():
    run(None, variable("count", "x"))
    run(COUNT, b'{"type":"text","message":{"text":"only text"}}')


def test_a_value_that_does_not_fit_is_named_by_its_path():
    error = violation(COUNT, variable("count", "x"))
    assert str(error).startswith("tool output schema is not valid")
    assert error.details == {"path": "$.count"}


def test_a_missing_variable_is_a_violation():
    assert violation(COUNT, variable("other", 1)).details == {"path": "$"}


def test_a_later_value_replaces_an_earlier_one():
    run(COUNT, variable("count", "x"), variable("count", 3))


def test_streamed_values_are_joined():
    schema = {"type": "object", "properties": {"text": {"const": "abc"}}}
    run(schema, *(variable("text", part, stream=True) for part in "abc"))
    violation(schema, variable("text", "ab", stream=True))


def test_streamed_parts_are_kept_apart_until_the_end():
    """Each join on the way would copy all before it: 8 MiB in small parts took a minute."""
    rules = OutputRules("acme/tool", "enforce", compile_schema({"required": ["text", "other"]}))
    for part in ("ab", "cd", "ef"):
        rules.apply([variable("text", part, stream=True)])
        rules.apply([variable("other", part, stream=True)])
    assert rules._streamed == {name: ["", "ab", "cd", "ef"] for name in ("text", "other")}
    rules.finish()


def test_a_value_before_and_after_streamed_parts_counts_as_it_comes():
    schema = {"properties": {"a": {"const": "xyz"}, "b": {"const": 3}, "c": {"const": "z"}}}
    run(
        schema,
        variable("a", "x"),
        *(variable("a", part, stream=True) for part in "yz"),
        variable("b", "y", stream=True),
        variable("b", 3),
        variable("c", 3),
        variable("c", "z", stream=True),
    )


def test_a_variable_over_the_limit_is_not_even_decoded():
    # No JSON: decoding it would say so.
    large = b'{"type":"variable","message":' + b"x" * MAX_VARIABLE_BYTES
    assert "bytes of them" in str(violation(COUNT, variable("count", 3), large))


@pytest.mark.parametrize(
    ("chunk", "why"),
    [
        (variable(3, "x"), "variable name is not a string"),
        (variable("a", "x", stream="yes"), "stream is not a boolean"),
        (variable("a", 3, stream=True), "variable value is not a string"),
        (b'{"type":"variable","message":{"variable_name":"a"}}', "stream is not a boolean"),
        (b'{"type":"variable","message":null}', "no fields"),
    ],
)
def test_a_malformed_variable_message_is_a_violation(chunk, why):
    assert why in str(violation(COUNT, chunk, variable("count", 1)))


def test_big_integers_are_exact():
    run({"properties": {"n": {"const": 9007199254740993}}}, variable("n", 9007199254740993))
    violation({"properties": {"n": {"const": 9007199254740992}}}, variable("n", 9007199254740993))


def test_too_many_variables_are_a_violation():
    chunks = [variable(f"v{number}", 1) for number in range(MAX_VARIABLES + 1)]
    assert "more than" in str(violation({"type": "object"}, *chunks))


def test_a_schema_that_does_not_compile_is_a_violation():
    assert "does not compile" in str(violation({"type": 3}, variable("a", 1)))


def test_a_reference_that_leads_nowhere_is_a_violation():
    assert "refers to" in str(violation({"$ref": "#/definitions/x"}, variable("a", 1)))


def test_a_remote_reference_is_not_fetched_and_not_checked():
    remote = {"properties": {"a": {"$ref": "https://schemas.invalid/x.json"}}}
    run(remote, variable("a", 1))


def test_a_schema_that_refers_to_itself_without_end_is_a_violation():
    assert "without end" in str(violation({"$ref": "#"}, variable("a", 1)))


def test_the_draft_is_what_schema_names_else_seven():
    draft4 = {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "properties": {"a": {"maximum": 3, "exclusiveMaximum": True}},
    }
    violation(draft4, variable("a", 3))
    assert isinstance(
        compile_schema({"properties": {"a": {"exclusiveMaximum": True}}}), SchemaInvalid
    )


def test_a_schema_too_deep_does_not_compile():
    deep = {}
    for _ in range(MAX_DEPTH + 1):
        deep = {"not": deep}
    assert isinstance(compile_schema(deep), SchemaInvalid)


def test_schemas_are_compiled_once_and_forgotten_in_order():
    cache = SchemaCache(size=2)
    first = cache.get(("a", "t"), {})
    cache.get(("b", "t"), {})
    assert cache.get(("a", "t"), {}) is first
    cache.get(("c", "t"), {})
    assert cache.get(("a", "t"), {}) is first
    assert len(cache._entries) == 2


def test_mode_warn_leaves_the_stream_and_counts(caplog):
    counter = metrics.OUTPUT_SCHEMA_VIOLATIONS.labels("acme/tool", "warn")
    before = counter.value
    run(COUNT, variable("count", "x"), mode="warn")
    assert counter.value == before + 1
    assert "tool output schema is not valid" in caplog.text


def test_mode_off_looks_at_nothing():
    run(COUNT, variable("count", "x"), mode="off")


def test_the_mode_may_be_set_per_plugin():
    settings = Settings.load(
        {"TIDEGATE_OUTPUT_SCHEMA": "off", "TIDEGATE_OUTPUT_SCHEMA_PLUGINS": "a/b=enforce"}
    )
    book = RuleBook(settings)
    strict = book.rules("a/b:1@c", "a/b", "tool", COUNT)
    lax = book.rules("a/c:1@c", "a/c", "tool", COUNT)
    for rules in (strict, lax):
        rules.apply([variable("count", "x")])
    lax.finish()
    with pytest.raises(OutputSchemaViolation):
        strict.finish()


@pytest.mark.parametrize(
    "chunk",
    [
        b'{"type":"text","message":{}}',
        b'{ "type" : "text" }',
        b'{"message":{},"type":"blob_chunk"}',
    ],
)
def test_known_types_pass_however_they_are_written(chunk):
    assert OutputRules("a/b", "off", None).apply([chunk]) == ([chunk], None)


@pytest.mark.parametrize("chunk", [b'{"type":"x"}', b"{}", b'{"type":3}', b"[]", b"", b'{"type":"'])
def test_unknown_types_are_protocol_errors(chunk):
    passed, error = OutputRules("a/b", "off", None).apply([chunk])
    assert passed == []
    assert error is not None
    assert error.error_type == "ProtocolError"


TEXT = b'{"type":"text","message":{"text":"{\\"type\\":\\"x\\"}"}}'
FOREIGN = b'{"type":"texture","message":{}}'


@pytest.mark.parametrize("before", [0, 1, 5])
def test_a_foreign_type_among_many_chunks_ends_the_call_after_those_before_it(before):
    chunks = [TEXT] * before + [FOREIGN] + [TEXT] * 3
    passed, error = OutputRules("a/b", "off", None).apply([TEXT, b"\n".join(chunks), TEXT])
    assert b"\n".join(passed) == b"\n".join([TEXT] * (before + 1))
    assert error is not None
    assert error.error_type == "ProtocolError"


def test_a_variable_among_many_chunks_is_collected():
    body = b"\n".join([TEXT, variable("count", "x"), TEXT])
    rules = RuleBook(Settings.load({"TIDEGATE_OUTPUT_SCHEMA": "enforce"})).rules(
        "a/b:1@c", "a/b", "tool", COUNT
    )
    assert rules.apply([body]) == ([body], None)
    with pytest.raises(OutputSchemaViolation):
        rules.finish()


def test_a_body_of_variables_is_collected_whole():
    body = b"\n".join([variable("count", 1), variable("count", "x")])
    rules = RuleBook(Settings.load({"TIDEGATE_OUTPUT_SCHEMA": "enforce"})).rules(
        "a/b:1@c", "a/b", "tool", COUNT
    )
    assert rules.apply([body]) == ([body], None)
    with pytest.raises(OutputSchemaViolation):
        rules.finish()
