"""Shapes: what a field takes, what it becomes when absent, how a misfit is told."""

import pytest

from tidegate.packages import shapes
from tidegate.packages.shapes import Misfit, list_of, nullable, or_empty, or_null, record
from tidegate.packages.yaml_nodes import compose


def shaped(shape, content: str):
    return shape(compose(content.encode(), "test.yaml"))


@pytest.mark.parametrize(
    ("shape", "absent"),
    [
        (shapes.text, ""), (shapes.optional_text, None), (shapes.flag, False),
        (shapes.number, None), (shapes.whole, None), (shapes.amount, 0), (shapes.decimal, "0"),
        (shapes.anything, None), (shapes.free_mapping, None), (list_of(shapes.text), None),
        (or_empty(list_of(shapes.text)), []), (shapes.I18N, {"en_US": ""}),
        (shapes.OPTIONAL_I18N, None),
    ],
)  # fmt: skip
def test_absent_and_null_are_the_same(shape, absent):
    assert shape(None) == absent
    assert shaped(record({"x": shape}), "x: ~") == {"x": absent}


@pytest.mark.parametrize(
    ("shape", "content", "value"),
    [
        (shapes.text, "1.10", "1.10"), (shapes.text, "no", "no"), (shapes.text, "'~'", "~"),
        (shapes.text, "2024-01-01", "2024-01-01"), (shapes.optional_text, "''", ""),
        (shapes.flag, "on", True), (shapes.number, "1.0", 1), (shapes.number, "'2'", 2),
        (shapes.whole, "2.0", 2), (shapes.decimal, "0.10", "0.1"),
        (list_of(shapes.text), "[1, a]", ["1", "a"]),
        (shapes.free_mapping, "{1: yes}", {"1": "yes"}),
        (shapes.I18N, "{en_US: a, zh_Hans: '', xx: y}", {"en_US": "a"}),
    ],
)  # fmt: skip
def test_values_become_what_the_field_says(shape, content, value):
    assert shaped(shape, content) == value


@pytest.mark.parametrize(
    ("shape", "content"),
    [
        (shapes.text, "[a]"), (shapes.text, "{a: b}"), (shapes.flag, "7"), (shapes.flag, "[]"),
        (shapes.number, "many"), (shapes.number, "[1]"), (shapes.number, ".inf"),
        (shapes.decimal, "much"), (shapes.decimal, "{}"), (list_of(shapes.text), "a"),
        (list_of(shapes.text), "''"), (shapes.free_mapping, "[a]"), (shapes.I18N, "Weather"),
        (record({}), "[a]"), (shapes.anything, ".nan"),
    ],
)  # fmt: skip
def test_wrong_kind_is_a_misfit(shape, content):
    with pytest.raises(Misfit):
        shaped(shape, content)


def test_misfit_tells_the_way_to_the_field():
    shape = record({"tools": list_of(record({"identity": record({"name": shapes.text})}))})
    with pytest.raises(Misfit) as error:
        shaped(shape, "tools:\n  - identity: {name: fine}\n  - identity: {name: [bad]}\n")
    assert str(error.value) == "tools[1].identity.name takes text (line 3)"


def test_omitted_fields_are_those_that_would_be_null():
    shape = record({"a": nullable(shapes.number), "b": or_null(shapes.flag)}, omit=("a", "b"))
    assert shaped(shape, "{a: 0, b: false}") == {"a": 0}
    assert shaped(shape, "{}") == {}
