"""What text means where a field is typed, and where it is free (YAML 1.2)."""

import pytest

from tidegate.packages.scalars import boolean_of, decimal_of, number_of, resolve, time_of
from tidegate.packages.yaml_nodes import Scalar


def plain(text: str) -> Scalar:
    return Scalar(text, True, "", 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("NULL", None), ("none", "none"),
        ("true", True), ("FALSE", False), ("yes", "yes"), ("on", "on"), ("n", "n"),
        ("1", 1), ("-17", -17), ("+3", 3), ("0x1F", 31), ("0o17", 15), ("017", 15), ("0b101", 5),
        ("1_000", 1000), ("08", 8), ("1.0", 1), ("1.50", 1.5), (".5", 0.5), ("1e3", 1000),
        ("-2.5e-1", -0.25), ("1.2.3", "1.2.3"), ("0x", "0x"), ("_", "_"), ("1,5", "1,5"),
        ("18446744073709551615", 18446744073709551615), ("36893488147419103232", 2.0**65),
        ("2024-01-02", "2024-01-02T00:00:00Z"), ("12:30", "12:30"), ("text", "text"),
    ],
)  # fmt: skip
def test_free_value_is_typed_by_the_core_schema(text, value):
    found = resolve(plain(text))
    assert found == value
    assert type(found) is type(value) or isinstance(value, float)


@pytest.mark.parametrize("text", [".inf", "-.INF", ".nan", "1e999"])
def test_number_that_json_does_not_know_is_refused(text):
    with pytest.raises(ValueError, match="number"):
        resolve(plain(text))


def test_quotes_and_tags_make_text():
    assert resolve(Scalar("1", False, "", 1)) == "1"
    assert resolve(Scalar("true", False, "", 1)) == "true"
    assert resolve(Scalar("", False, "", 1)) == ""
    assert resolve(Scalar("1", True, "str", 1)) == "1"
    assert resolve(Scalar("12", False, "int", 1)) == 12


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("False", False), ("yes", True), ("on", True), ("Y", True), ("off", False)],
)
def test_typed_boolean_takes_the_older_words_too(text, value):
    assert boolean_of(plain(text)) is value


@pytest.mark.parametrize("node", [plain("1"), plain("maybe"), Scalar("true", False, "", 1)])
def test_typed_boolean_takes_nothing_else(node):
    with pytest.raises(ValueError, match="true or false"):
        boolean_of(node)


def test_long_number_is_text_and_costs_no_time():
    assert number_of("9" * 100_000) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.0010", "0.001"), ("1e-7", "0.0000001"), ("5", "5"), ("1.0", "1"), ("0.00", "0"),
        ("-0", "0"), ("1E+3", "1000"), (" 2.5 ", "2.5"), ("100", "100"),
    ],
)  # fmt: skip
def test_decimal_is_normalised(text, value):
    assert decimal_of(text) == value


@pytest.mark.parametrize("text", ["", "abc", "NaN", "Infinity", "1e999999999", "1e-999999999"])
def test_text_that_is_no_decimal_is_refused(text):
    with pytest.raises(ValueError, match="decimal"):
        decimal_of(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024-07-12T08:03:44.658609186Z", "2024-07-12T08:03:44.658609186Z"),
        ("2024-07-12T08:03:44.500000000Z", "2024-07-12T08:03:44.5Z"),
        ("2024-07-12T08:03:44+08:00", "2024-07-12T08:03:44+08:00"),
        ("2024-07-12T08:03:44.000-0330", "2024-07-12T08:03:44-03:30"),
        ("2024-07-12 08:03:44", "2024-07-12T08:03:44Z"),
        ("2024-7-2t8:3:4Z", "2024-07-02T08:03:04Z"),
        ("2024-07-12", "2024-07-12T00:00:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    ],
)
def test_time_keeps_zone_and_nanoseconds(text, value):
    assert time_of(text) == value


@pytest.mark.parametrize(
    "text", ["", "now", "2024-13-01", "2024-02-30T00:00:00Z", "24-01-01", "2024-01-01T25:00:00Z"]
)
def test_text_that_is_no_time_is_none(text):
    assert time_of(text) is None
