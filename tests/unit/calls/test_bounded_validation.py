"""Checking what a plugin put out against what it declared never stops the process."""

import json
import time

import gevent
import pytest

from tidegate.calls.bounded_validation import MAX_ELEMENTS
from tidegate.calls.schemas import SchemaInvalid, compile_schema

DRAFT_4 = "http://json-schema.org/draft-04/schema#"
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
DRAFT_2020 = "https://json-schema.org/draft/2020-12/schema"
#: Backtracks for longer than anybody lives, in every engine that backtracks.
EVIL = "^(a|aa)+$"
VICTIM = "a" * 60 + "!"


def doubling(levels):
    """allOf that refers twice to the next level: 2 ** levels keywords to apply."""
    definitions = {
        f"d{level}": {"allOf": [{"$ref": f"#/definitions/d{level + 1}"}] * 2}
        for level in range(levels)
    }
    return {"definitions": {**definitions, f"d{levels}": {}}, "$ref": "#/definitions/d0"}


def depending(levels):
    """dependentSchemas that double, behind a keyword that follows them by a way of its own."""

    def both(level):
        return {name: {"$ref": f"#/$defs/d{level}"} for name in "ab"}

    definitions = {f"d{n}": {"dependentSchemas": both(n + 1)} for n in range(levels)}
    return {
        "$schema": DRAFT_2020,
        "unevaluatedProperties": False,
        "dependentSchemas": both(0),
        "$defs": {**definitions, f"d{levels}": {}},
    }


#: A value of 6 MB: each violation that shows it costs as much.
LARGE = {"a": {"b": ["x" * 150] * 40_000}}


def outcome(schema, variables):
    """What is said about ``variables``; the schema's own refusal where it is refused."""
    compiled = compile_schema(schema)
    if isinstance(compiled, SchemaInvalid):
        return compiled.reason
    found = compiled.violation(variables)
    return found and found[1]


COSTLY = {
    "pattern": ({"properties": {"a": {"pattern": EVIL}}}, {"a": VICTIM}),
    "pattern in a part that names a draft": (
        {"properties": {"a": {"$schema": DRAFT_7, "pattern": EVIL}}},
        {"a": VICTIM},
    ),
    "pattern behind a reference to a root that names a draft": (
        {
            "$schema": DRAFT_4,
            "properties": {"a": {"properties": {"b": {"$ref": "#"}}}, "c": {"pattern": EVIL}},
        },
        {"a": {"b": {"c": VICTIM}}},
    ),
    "patternProperties": ({"patternProperties": {EVIL: {}}}, {VICTIM: 1}),
    "additionalProperties": (
        {"patternProperties": {EVIL: {}}, "additionalProperties": False},
        {VICTIM: 1},
    ),
    "propertyNames": ({"propertyNames": {"pattern": EVIL}}, {VICTIM: 1}),
    "unevaluatedProperties": (
        {
            "$schema": DRAFT_2020,
            "patternProperties": {EVIL: True},
            "unevaluatedProperties": False,
        },
        {VICTIM: 1},
    ),
    "dependentSchemas that double": (depending(40), {"a": 1, "b": 2}),
    "many elements under unevaluatedProperties": (
        {"$schema": DRAFT_2020, "properties": {"a": {"unevaluatedProperties": {}}}},
        {"a": {str(n): n for n in range(201)}},
    ),
    "many violations that show a large value": (
        {"properties": {"a": {"anyOf": [{"type": "integer"}] * 300}}},
        LARGE,
    ),
    "many parts that are false": ({"properties": {"a": {"anyOf": [False] * 300}}}, LARGE),
    "many matches that each are in time": (
        {"properties": {"a": {"items": {"not": {"pattern": EVIL}}}}},
        {"a": [f"{'a' * 18}{n}" for n in range(20_000)]},
    ),
    "a long pattern": ({"properties": {"a": {"pattern": "(a|b)" * 40_000}}}, {"a": "x"}),
    "a long pattern of names": ({"patternProperties": {"(a|b)" * 40_000: {}}}, {"a": "x"}),
    "a large item under uniqueItems": (
        {"properties": {"a": {"uniqueItems": True}}},
        {"a": [[[[]]] * 300_000]},
    ),
    "allOf that doubles": (doubling(60), {"a": 1}),
    "a long array": ({"properties": {"a": {"items": True}}}, {"a": [0] * (MAX_ELEMENTS + 1)}),
    "a comparison with much": (
        {"properties": {"a": {"items": {"not": {"enum": [[0] * 20_000]}}}}},
        {"a": [[0] * 19_999 + [1]] * 20_000},
    ),
    "uniqueItems of what cannot be sorted": (
        {"properties": {"a": {"uniqueItems": True}}},
        {"a": [{"n": [n, None]} for n in range(MAX_ELEMENTS + 1)]},
    ),
    "a schema whose enum cannot be sorted": (
        {"$schema": DRAFT_4, "properties": {"a": {"enum": [[n, None] for n in range(18_000)]}}},
        {"a": [0, None]},
    ),
}


@pytest.mark.parametrize("name", COSTLY)
def test_what_is_costly_to_check_ends_and_lets_others_run(name):
    schema, variables = COSTLY[name]
    longest = [0.0]

    def beat() -> None:
        last = time.monotonic()
        while True:
            gevent.sleep(0.001)
            longest[0] = max(longest[0], time.monotonic() - last)
            last = time.monotonic()

    heart = gevent.spawn(beat)
    gevent.sleep(0)
    try:
        outcome(schema, variables)  # most are refused; that it comes back at all is the point
        gevent.sleep(0.002)
    finally:
        heart.kill()
    assert longest[0] < 2, "nobody else ran meanwhile"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("pattern", "pattern"),
        ("pattern in a part that names a draft", "pattern"),
        ("pattern behind a reference to a root that names a draft", "pattern"),
        ("patternProperties", "pattern"),
        ("additionalProperties", "pattern"),
        ("propertyNames", "pattern"),
        ("unevaluatedProperties", "not supported"),
        ("dependentSchemas that double", "not supported"),
        ("many elements under unevaluatedProperties", "elements"),
        ("many violations that show a large value", "steps"),
        ("many parts that are false", "steps"),
        ("many matches that each are in time", "steps"),
        ("a long pattern", "1000 characters"),
        ("a long pattern of names", "1000 characters"),
        ("a large item under uniqueItems", "bytes"),
        ("allOf that doubles", "steps"),
        ("a long array", "elements"),
        ("a comparison with much", "steps"),
        ("uniqueItems of what cannot be sorted", "elements"),
    ],
)
def test_what_was_too_costly_is_said(name, why):
    assert why in outcome(*COSTLY[name])


def test_a_pattern_that_cannot_be_used_is_said():
    assert "cannot be used" in outcome({"properties": {"a": {"pattern": "\\p{"}}}, {"a": "x"}) or (
        "regex" in outcome({"properties": {"a": {"pattern": "\\p{"}}}, {"a": "x"})
    )


@pytest.mark.parametrize("pattern", ["(" * 900, "a{99999999999999}"])
def test_a_pattern_that_cannot_be_compiled_makes_the_schema_invalid(pattern):
    found = compile_schema({"properties": {"a": {"pattern": pattern}}})
    assert isinstance(found, SchemaInvalid)
    assert "cannot be used" in found.reason


def test_a_violation_that_shows_a_large_value_is_still_told():
    assert "is not of type 'integer'" in outcome(
        {"properties": {"a": {"properties": {"b": {"items": {"type": "integer"}}}}}}, LARGE
    )
    assert outcome({"properties": {"a": {"type": "integer"}}}, LARGE).startswith("{'b': ['xxx")


FITS = [
    ({"properties": {"a": {"pattern": "^b+$"}}}, {"a": "bbb"}, {"a": "abc"}),
    ({"patternProperties": {"^x": {"type": "integer"}}}, {"x1": 1, "y": "z"}, {"x1": "1"}),
    (
        {"properties": {"a": {}}, "patternProperties": {"^x": {}}, "additionalProperties": False},
        {"a": 1, "x": 2},
        {"a": 1, "b": 2},
    ),
    ({"additionalProperties": {"type": "string"}}, {"a": "x"}, {"a": 1}),
    ({"additionalProperties": True}, {"a": 1}, None),
    ({"properties": {"a": {"uniqueItems": True}}}, {"a": [1, True, "1"]}, {"a": [1, 1.0]}),
    ({"properties": {"a": {"uniqueItems": True}}}, {"a": [[1], [2]]}, {"a": [[1], [1.0]]}),
    ({"properties": {"a": {"uniqueItems": False}}}, {"a": [1, 1]}, None),
    ({"properties": {"a": {"enum": [1, "x", [2]]}}}, {"a": [2]}, {"a": [3]}),
    ({"properties": {"a": {"const": {"b": [1]}}}}, {"a": {"b": [1]}}, {"a": {"b": [2]}}),
    (
        {"$schema": DRAFT_2020, "unevaluatedProperties": False, "properties": {"a": {}}},
        {"a": 1},
        {"b": 1},
    ),
]


@pytest.mark.parametrize(("schema", "good", "bad"), FITS)
def test_keywords_of_ours_judge_as_the_standard_says(schema, good, bad):
    assert outcome(schema, good) is None
    if bad is not None:
        assert outcome(schema, bad)


def test_an_ordinary_schema_of_some_size_is_checked_whole():
    schema = {
        "properties": {
            "rows": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {f"c{n}": {"type": ["string", "null"]} for n in range(8)},
                    "required": ["c0"],
                },
            }
        }
    }
    rows = [{f"c{n}": "x" for n in range(8)} for _ in range(5000)]
    assert outcome(schema, {"rows": rows}) is None
    rows.append({"c0": 5})
    assert "5 is not of type" in outcome(schema, json.loads(json.dumps({"rows": rows})))
