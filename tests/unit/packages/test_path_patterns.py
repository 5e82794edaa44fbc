"""Patterns of model files: like a shell's, one path segment at a time."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.packages.declarations.path_patterns import matches


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("models/llm/*.yaml", "models/llm/gpt.yaml", True),
        ("models/llm/*.yaml", "models/llm/sub/gpt.yaml", False),
        ("models/*/*.yaml", "models/llm/gpt.yaml", True),
        ("models/llm/gpt-?.yaml", "models/llm/gpt-4.yaml", True),
        ("models/llm/gpt-?.yaml", "models/llm/gpt-.yaml", False),
        ("a[0-9]b", "a5b", True), ("a[^0-9]b", "a5b", False), ("a[^0-9]b", "axb", True),
        ("a[xyz-]b", "a-b", True), ("a[\\]]b", "a]b", True), ("a[", "a[", False),
        ("a\\*b", "a*b", True), ("a\\*b", "axb", False), ("*", "", True), ("**", "a/b", False),
        ("*a*b*c", "xxaxxbxxc", True), ("*a*b*c", "xxaxxbxx", False),
        ("", "", True), ("?", "é", True),
    ],
)  # fmt: skip
def test_pattern_fits_or_not(pattern, path, fits):
    assert matches(pattern, path) is fits


def test_many_stars_cost_no_time():
    assert not matches("*a" * 60, "a" * 59 + "b" * 200)


@given(st.text("ab*?", max_size=10), st.text("ab", max_size=10))
def test_stars_and_marks_mean_what_a_regular_expression_would(pattern, path):
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    assert matches(pattern, path) == bool(re.fullmatch(expression, path))
